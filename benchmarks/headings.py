"""Compare recall with unknown headings to recall with known ones: python benchmarks/headings.py BUNDLE SPEC

Rotates every panorama of a data set by a random heading and searches it at N rotations among the set's tiles. Panoramas
with a known heading are aligned first. Prints R@1 and R@5, their share of the aligned recall, and the heading error of
correct answers.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr import open_bundle
from geodtr.cli.console import track
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.images.decode import decode
from geodtr.runtime.images.intake import is_full_turn
from geodtr.runtime.images.preprocess import preprocess
from geodtr.runtime.localization.headings import best_turns, turn
from geodtr.runtime.search.exact import search
from geodtr.runtime.spec import Descriptors, Embedder, Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import read_test_set

TOP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", help="Data set, KIND:PATH.")
    parser.add_argument("--headings", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    bundle = open_bundle(options.bundle)
    pair_set = read_test_set(options.data).first(options.limit)
    ground, aerial = bundle.embedder("ground"), bundle.embedder("aerial")
    tiles = embed_files(aerial, pair_set.references, count=len(pair_set.references), track=track)
    rotations = np.random.default_rng(options.seed).uniform(0, 360, len(pair_set))

    aligned, _ = _measure(ground, tiles, pair_set, np.zeros(len(pair_set)), 1)
    print(f"{'aligned':12} R@1 {aligned[0]:.1%}  R@5 {aligned[1]:.1%}  of {len(pair_set)} panoramas")
    for count in options.headings:
        recall, error = _measure(ground, tiles, pair_set, rotations, count)
        shares = [part / whole if whole else 0.0 for part, whole in zip(recall, aligned, strict=True)]
        print(
            f"{f'{count} headings':12} R@1 {recall[0]:.1%} ({shares[0]:.0%} of aligned)  R@5 {recall[1]:.1%} "
            f"({shares[1]:.0%})  heading error {error:.1f} degrees (median of correct answers)"
        )


def _measure(
    ground: Embedder, tiles: Descriptors, pair_set: PairSet, rotations: NDArray[np.float64], count: int
) -> tuple[tuple[float, float], float]:
    """R@1 and R@5 as shares, and the median heading error in degrees of correct answers."""
    ranks, errors = [], []
    queries = zip(pair_set.pairs, pair_set.tiles, rotations, strict=True)
    for pair, tile, wanted in track(queries, f"Searching {count} headings", len(pair_set)):
        panorama, heading = _rotated(decode(pair.ground).pixels, pair.heading or 0.0, wanted)
        turns = turn(preprocess(Image.fromarray(panorama), ground.spec.preprocessing), count)
        hits = best_turns(search(ground.embed(turns.images), tiles, TOP), turns.headings)
        correct = np.flatnonzero(hits.rows == tile)
        ranks.append(int(correct[0]) if len(correct) else TOP)
        if ranks[-1] == 0:
            errors.append(abs((hits.headings[0] - heading + 180) % 360 - 180))
    rank = np.array(ranks)
    error = float(np.median(errors)) if errors else float("nan")
    return (float((rank < 1).mean()), float((rank < TOP).mean())), error


def _rotated(panorama: Images, heading: float, wanted: float) -> tuple[Images, float]:
    """Rotate a panorama from `heading` to `wanted`, rounded to whole columns; also return the exact new heading."""
    if not is_full_turn(panorama.shape[1], panorama.shape[0]):
        raise ConfigError(
            f"A panorama is {panorama.shape[1]}x{panorama.shape[0]}. It does not cover 360 degrees, so it cannot be "
            "rotated."
        )
    width = panorama.shape[1]
    columns = round((heading - wanted) * width / 360)
    return np.roll(panorama, columns, axis=1), (heading - 360 * columns / width) % 360


if __name__ == "__main__":
    main()
