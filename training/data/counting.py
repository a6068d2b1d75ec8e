"""Which references count as right for which queries of a pair set: one entry for each way in which papers count it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import DataError
from geodtr.runtime.matches import Matches
from geodtr.runtime.names import Branch
from geodtr.training.data.pair_set import PairSet

NEAR = 5.0
"""Metres within which CVACT_test counts a tile as correct. Source: Liu and Li (OriCNN), CVPR 2019."""

OWN_TILE, ANY_RIGHT_TILE = "own tile", "any right tile"
ANY_NEAR_TILE = f"any tile within {NEAR:.0f} m"
HIT_RATE = "own tile, semi-positives left out"
"""VIGOR's hit rate is R@1 of this. Source: Zhu, Yang and Chen, CVPR 2021."""
ANY_RIGHT_IMAGE = "any right image, from tiles"


@dataclass(frozen=True, slots=True)
class Counting:
    """One way to count a pair set.

    Attributes
    ----------
    name
        What counts as found.
    queries
        The branch of the queries; the references are all images of the other.
    rows
        The queries' rows among the descriptors of their branch, int64 [Q].
    truth, ignored
        The right references of each query, and the ones left out of its ranking.
    """

    name: str
    queries: Branch
    rows: NDArray[np.int64]
    truth: Matches
    ignored: Matches | None


def countings(pair_set: PairSet) -> tuple[Counting, ...]:
    """Every way in which `pair_set` is counted. The first is the published recall: training selects by it.

    A set with semi-positives is ranked among all tiles, then without these; a set with positions in metres is counted
    by the pair's own tile, then by every tile within 5 m.
    """
    if pair_set.tile_queries:
        return (_from_tiles(pair_set),)
    elsewhere = pair_set.on_other_maps
    several = any(pair.positives for pair in pair_set.pairs)
    ways = [(ANY_RIGHT_TILE if several else OWN_TILE, pair_set.truth, elsewhere)]
    if pair_set.ignored is not None:
        ways.append((HIT_RATE, pair_set.truth, pair_set.left_out))
    if all(pair.utm is not None for pair in pair_set.pairs):
        ways.append((ANY_NEAR_TILE, pair_set.within(NEAR), elsewhere))
    rows = np.arange(len(pair_set))
    return tuple(Counting(name, "ground", rows, truth, ignored) for name, truth, ignored in ways)


def _from_tiles(pair_set: PairSet) -> Counting:
    """Each of `tile_queries` among the ground images of all pairs."""
    number = {pair_set.tile_rows[path]: query for query, path in enumerate(pair_set.tile_queries)}
    truth = pair_set.truth
    query = np.array([number.get(row, -1) for row in range(len(pair_set.references))], np.int64)[truth.reference]
    order = np.argsort(query, kind="stable")
    order = order[query[order] >= 0]
    matches = Matches(query[order], truth.query[order])
    return Counting(ANY_RIGHT_IMAGE, "aerial", np.array(list(number), np.int64), matches, None)


def check_ground_queries(pair_set: PairSet, asker: str) -> None:
    """Raise DataError when `pair_set` has tiles to look up: `asker`, who ranks tiles, would count something else."""
    if pair_set.tile_queries:
        raise DataError(
            f"{pair_set.name} looks up tiles among ground images; {asker} looks up ground images among tiles. Choose a "
            "split from drone to satellite (d2s)."
        )
