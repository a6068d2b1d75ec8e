"""How much of the aligned recall is left when headings are unknown: python benchmarks/headings.py BUNDLE SPEC

Every panorama of a data set is turned by a heading drawn at random, as a camera would have taken it, and searched by N
turns among the set's tiles. Panoramas whose heading the set knows are aligned first. Prints R@1 and R@5, their share of
the aligned ones, and how far off the headings of right answers are.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.cli.console import track
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.images.decode import decode
from geodtr.runtime.images.preprocess import preprocess
from geodtr.runtime.localization.headings import best_turns, is_full_turn, turn
from geodtr.runtime.search.exact import search
from geodtr.runtime.spec import Descriptors, Embedder, Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import read_test_set

TOP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", help="a data set, KIND:PATH")
    parser.add_argument("--headings", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    bundle = open_bundle(asked.bundle)
    pair_set = read_test_set(asked.data).first(asked.limit)
    ground, aerial = bundle.embedder("ground"), bundle.embedder("aerial")
    tiles = embed_files(aerial, pair_set.references, description="Embedding tiles", track=track)
    turned_by = np.random.default_rng(asked.seed).uniform(0, 360, len(pair_set))

    aligned, _ = _measure(ground, tiles, pair_set, np.zeros(len(pair_set)), 1)
    print(f"{'aligned':12} R@1 {aligned[0]:.1%}  R@5 {aligned[1]:.1%}  of {len(pair_set)} panoramas")
    for count in asked.headings:
        found, off = _measure(ground, tiles, pair_set, turned_by, count)
        shares = [part / whole if whole else 0.0 for part, whole in zip(found, aligned, strict=True)]
        print(
            f"{f'{count} headings':12} R@1 {found[0]:.1%} ({shares[0]:.0%} of aligned)  R@5 {found[1]:.1%} "
            f"({shares[1]:.0%})  heading off by {off:.1f} degrees (median of right answers)"
        )


def _measure(
    ground: Embedder, tiles: Descriptors, pair_set: PairSet, turned_by: NDArray[np.float64], count: int
) -> tuple[tuple[float, float], float]:
    """R@1 and R@5 as shares, and the median error of the headings in degrees where the best tile is right."""
    ranks, off = [], []
    queries = zip(pair_set.pairs, pair_set.tiles, turned_by, strict=True)
    for pair, tile, wanted in track(queries, f"Searching {count} headings", len(pair_set)):
        panorama, heading = _turned(decode(pair.ground).pixels, pair.heading or 0.0, wanted)
        turns = turn(preprocess(Image.fromarray(panorama), ground.spec.preprocessing), count)
        found = best_turns(search(ground.embed(turns.images), tiles, TOP), turns.headings)
        right = np.flatnonzero(found.rows == tile)
        ranks.append(int(right[0]) if len(right) else TOP)
        if ranks[-1] == 0:
            off.append(abs((found.headings[0] - heading + 180) % 360 - 180))
    rank = np.array(ranks)
    return (float((rank < 1).mean()), float((rank < TOP).mean())), float(np.median(off)) if off else float("nan")


def _turned(panorama: Images, has: float, wanted: float) -> tuple[Images, float]:
    """The panorama as taken with heading `wanted` where it was taken with `has`, to whole columns, and its heading."""
    if not is_full_turn(panorama.shape[1], panorama.shape[0]):
        raise ConfigError(
            f"A panorama is {panorama.shape[1]}x{panorama.shape[0]}: no full turn, so it cannot be rolled."
        )
    width = panorama.shape[1]
    columns = round((has - wanted) * width / 360)
    return np.roll(panorama, columns, axis=1), (has - 360 * columns / width) % 360


if __name__ == "__main__":
    main()
