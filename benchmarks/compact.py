"""What shorter descriptors cost and save:

    python benchmarks/compact.py RUN FIT_SPEC SPEC WORK [--sizes 1024,512,256] [--pairs 1500]

Fits a projection of RUN's descriptors to the pairs of FIT_SPEC, as `build-engine --descriptor-size` does, and measures
on the pairs of SPEC. Prints Markdown: by size, the memory of 92,802 tiles, the time of a search among as many (tiles of
SPEC, repeated with noise), R@1 and its paired change with the 95 % interval, by the projection that is kept and by the
principal directions alone; and the hits of each strength of whitening, and of the trained layer, on the pairs held out.
Files in WORK are reused.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr import Bundle, open_bundle
from geodtr.cli.console import track
from geodtr.export.build.source import export_checkpoint
from geodtr.export.projection.fitting import WHITENING, Fitting
from geodtr.export.statistics import paired_drop
from geodtr.runtime.recall import rank
from geodtr.runtime.search.exact import search
from geodtr.runtime.spec import Descriptors
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import read_test_set, read_training_set
from geodtr.training.evaluation.evaluate import DescriptorPair, embed_pairs

TILES = 92_802
"""Of CVACT_test."""
ROUNDS = 11

Hits = NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in (("run", Path), ("fit_spec", str), ("spec", str), ("work", Path)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--sizes", default="1024,512,256")
    parser.add_argument("--pairs", type=int, default=1500, help="Of FIT_SPEC, the first N.")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    onnx = options.work / "onnx"
    bundle = open_bundle(onnx) if onnx.exists() else export_checkpoint(options.run, onnx, track=track)
    fitted_to = described(bundle, read_training_set(options.fit_spec, options.pairs), options.work / "fitted_to.npz")
    test = described(bundle, read_test_set(options.spec), options.work / "test.npz")
    report(fitted_to, test, [int(size) for size in options.sizes.split(",")])


def described(bundle: Bundle, pairs: PairSet, file: Path) -> DescriptorPair:
    if not file.exists():
        rows = embed_pairs(bundle.embedders(), pairs, track=track)
        np.savez(file, ground=rows.ground, aerial=rows.aerial)
    with np.load(file) as stored:
        return DescriptorPair.of(bundle.embedders(), pairs, stored["ground"], stored["aerial"])


def report(fitted_to: DescriptorPair, test: DescriptorPair, sizes: list[int]) -> None:
    full = hits(test)
    size = test.aerial.shape[1]
    fitting = Fitting(fitted_to)
    projections = {each: fitting.to(each, track=track) for each in sizes}
    short = {each: projections[each].projection.project_pairs(test) for each in sizes}
    times = search_times({size: test, **short})
    print(
        "| numbers | MB of 92,802 tiles | search, ms of processor time (range) | R@1 | change (95 % interval) "
        "| change by the directions alone |"
    )
    print("|---|---|---|---|---|---|")
    print(f"| {size} | {megabytes(size)} | {times[size]} | {100 * full.mean():.2f} | | |")
    for each, fitted in projections.items():
        after = hits(short[each])
        alone = hits(fitting.directions.project_to(each, fitted.whitening).project_pairs(test))
        print(
            f"| {each} | {megabytes(each)} | {times[each]} | {100 * after.mean():.2f} | {changed(full, after)} "
            f"| {changed(full, alone)} |"
        )
    print(
        f"\n| numbers | hits of the model's own | {' | '.join(f'{each:g}' for each in WHITENING)} | layer | kept "
        "| variance kept, % |"
    )
    print(f"|---|---|{'---|' * len(WHITENING)}---|---|---|")
    for each, fitted in projections.items():
        held = " | ".join(map(str, (*(trial.hits for trial in fitted.trials), fitted.layer_hits)))
        kept = "layer" if fitted.is_trained else f"{fitted.whitening:g}"
        print(f"| {each} | {fitted.full_hits} of {fitted.queries} | {held} | {kept} | {100 * fitted.variance:.2f} |")


def hits(rows: DescriptorPair) -> Hits:
    return np.equal(rank(rows.ground, rows.aerial, rows.pair_set.truth).rank, 0)


def changed(before: Hits, after: Hits) -> str:
    drop = paired_drop(before, after)
    return f"{-100 * drop.share:+.2f} ({-100 * drop.high:+.2f} to {-100 * drop.low:+.2f})"


def megabytes(size: int) -> str:
    return f"{TILES * size * 4 / 1e6:,.0f}"


def search_times(by_size: dict[int, DescriptorPair]) -> dict[int, str]:
    """Processor time in milliseconds for one query and ten hits, sizes in turn; median and range over the rounds.

    On a busy machine it is steadier than the time by the clock. Threads of the library that multiplies count together.
    """
    galleries = {size: gallery(rows.aerial) for size, rows in by_size.items()}
    seconds: dict[int, list[float]] = {size: [] for size in by_size}
    for number in range(ROUNDS + 1):
        for size, rows in by_size.items():
            start = time.process_time()
            search(rows.ground[number : number + 1], galleries[size], 10)
            if number:  # the first round is for caches
                seconds[size].append(1e3 * (time.process_time() - start))
    return {size: f"{np.median(each):.1f} ({min(each):.1f} to {max(each):.1f})" for size, each in seconds.items()}


def gallery(tiles: Descriptors) -> Descriptors:
    """As many rows as CVACT_test has tiles."""
    random = np.random.default_rng(0)
    rows = np.empty((TILES, tiles.shape[1]), np.float32)
    for start in range(0, TILES, len(tiles)):
        part = rows[start : start + len(tiles)]
        part[:] = tiles[: len(part)] + random.normal(0, 0.1 / np.sqrt(tiles.shape[1]), part.shape)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    main()
