"""Hits, precision and distances are counted as the papers of each data set count them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geodtr.export.plots.sheets.retrieval import retrieved
from geodtr.runtime.recall import recall
from geodtr.runtime.spec import Correlation
from geodtr.training.data.counting import HIT_RATE, OWN_TILE, countings
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.evaluation.distance import measure_distance
from geodtr.training.evaluation.evaluate import DescriptorPair


def _pair(pair_set: PairSet, ground: NDArray[np.float32], aerial: NDArray[np.float32]) -> DescriptorPair:
    return DescriptorPair(pair_set, ground, aerial, None, frozenset())


def test_distances_are_measured_as_the_releases_do() -> None:
    """Both weigh the i-th of K by K - i, counted from 0: GTA-UAV in metres, DenseUAV in degrees."""
    rng = np.random.default_rng(0)
    tiles = [Path(f"a{n}") for n in range(12)]
    pairs = tuple(Pair(Path(f"g{n}"), tiles[n]) for n in range(5))
    unit = {path: rng.uniform(0, 3, 2) for path in (*tiles, *(pair.ground for pair in pairs))}
    there = PairSet("set", pairs, tuple(tiles[5:]))
    ground, aerial = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (rng.normal(size=(5, 6)), rng.normal(size=(12, 6)))
    )
    descriptors = _pair(there, ground.astype(np.float32), aerial.astype(np.float32))
    (way,) = countings(there)
    for kind, decay in (("gta", 1e-3), ("denseuav", 5e3)):
        at = {path: (float(x / decay), float(y / decay)) for path, (x, y) in unit.items()}
        positioned = replace(descriptors, pair_set=replace(there, positions=at))
        measured = measure_distance(positioned, way, kind)
        assert measured is not None
        for k in (1, 3, 5, 10):
            scores = []
            for query, pair in enumerate(pairs):
                nearest = np.argsort(-(aerial @ ground[query]))[:k]
                far = [np.hypot(*np.subtract(at[pair.ground], at[there.references[row]])) for row in nearest]
                scores.append(sum((k - i) / np.exp(decay * d) for i, d in enumerate(far)) / sum(range(1, k + 1)))
            assert measured.sdm[k] == pytest.approx(np.mean(scores))
        assert (measured.metres_at_1 is None) == (kind == "denseuav")
    assert measure_distance(positioned, way, "university") is None
    assert measure_distance(descriptors, way, "gta") is None, "no position is known"


def test_distances_and_sheets_are_of_the_rankings_that_a_correlation_gives() -> None:
    """A query's own tile is where the query is, all others a kilometre away."""
    rng = np.random.default_rng(0)
    scorer = Correlation(columns=4, seen=2, values=2, field_of_view=180)
    pairs = tuple(Pair(Path(f"g{n}"), Path(f"a{n}")) for n in range(12))
    at = {path: (1000.0 * n, 0.0) for n, pair in enumerate(pairs) for path in (pair.ground, pair.aerial)}
    ground, aerial = (rng.normal(size=(12, size)).astype(np.float32) for size in (4, 8))
    # Half of the queries are a part of their own tile.
    ground[:6] = aerial[:6, :4]
    ground /= np.linalg.norm(ground, axis=1, keepdims=True)
    there = PairSet("set", pairs, positions=at)
    descriptors = DescriptorPair(there, ground, aerial, scorer, frozenset())
    (way,) = countings(there)
    ranking = descriptors.rank(way)
    assert 0 < recall(ranking).at_1 < 1
    measured = measure_distance(descriptors, way, "gta")
    assert measured is not None
    hits = descriptors.nearest(way, descriptors.ground, 1).rows[:, 0]
    assert measured.metres_at_1 == pytest.approx(1000 * np.mean(np.abs(hits - np.arange(12))))
    assert (hits == np.arange(12)).tolist() == (ranking.rank == 0).tolist()
    sheet = retrieved(descriptors, way, ranking, "made", 12, 1)
    assert [row.tiles[0][2] for row in sheet] == (ranking.rank == 0).tolist()
    assert all(row.tiles[-1][2] for row in sheet), "a right one beyond the nearest is the last"


@settings(deadline=None)
@given(data=st.data())
def test_places_are_counted_as_the_release_of_university_does(data: st.DataObject) -> None:
    """Labels only, as its evaluation sees them: recall from the first right reference, precision by trapezoids."""
    drones = data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=12))
    queries = data.draw(st.sets(st.sampled_from(drones), min_size=1))
    tiles = [(place, copy) for place in range(6) for copy in range(data.draw(st.integers(1, 2)))]
    of_place = {place: tuple(Path(f"a{one}-{copy}") for one, copy in tiles if one == place) for place in range(6)}
    pairs = tuple(
        Pair(Path(f"g{n}"), of_place[place][0], positives=of_place[place][1:]) for n, place in enumerate(drones)
    )
    others = tuple(path for place in range(6) if place not in drones for path in of_place[place])
    wanted = tuple(path for place in sorted(queries) for path in of_place[place])
    there = PairSet("there", pairs, others)
    back = replace(there, tile_queries=wanted)
    label = {path: place for place, paths in of_place.items() for path in paths}
    references = [label[path] for path in there.references]
    scores = np.array(data.draw(st.permutations(range(len(drones) * len(references)))), np.float32)
    scores = scores.reshape(len(drones), -1)
    # The drone images' descriptors are unit vectors, so the tiles' are columns of the scores.
    descriptors = _pair(there, np.eye(len(drones), dtype=np.float32), np.ascontiguousarray(scores.T))
    _holds(descriptors, drones, references, scores)
    rows = [there.references.index(path) for path in wanted]
    _holds(replace(descriptors, pair_set=back), [references[row] for row in rows], drones, scores.T[rows])


def _holds(
    descriptors: DescriptorPair, queries: Sequence[int], references: Sequence[int], scores: NDArray[np.float32]
) -> None:
    (way,) = countings(descriptors.pair_set)
    first, precision = [], []
    for label, row in zip(queries, scores, strict=True):
        good = [rank for rank, reference in enumerate(np.argsort(-row)) if references[reference] == label]
        before = [found / rank if rank else 1.0 for found, rank in enumerate(good)]
        after = [(found + 1) / (rank + 1) for found, rank in enumerate(good)]
        first.append(good[0])
        precision.append((sum(before) + sum(after)) / 2 / len(good))
    ranking = descriptors.rank(way)
    assert ranking.rank.tolist() == first
    assert recall(ranking).at_1 == pytest.approx(np.mean([rank == 0 for rank in first]))
    assert descriptors.average_precision(way).trapezoids == pytest.approx(np.mean(precision))


def test_vigor_is_counted_among_all_tiles_and_by_its_hit_rate() -> None:
    """The second panorama's semi-positive is nearer than its tile."""
    tiles = [Path(f"a{n}") for n in range(3)]
    pairs = (Pair(Path("g0"), tiles[0]), Pair(Path("g1"), tiles[1], semi_positives=(tiles[2],)))
    aerial = np.eye(3, dtype=np.float32)
    descriptors = _pair(PairSet("vigor", pairs), np.array([[1, 0, 0], [0, 0.6, 0.8]], np.float32), aerial)
    own, hit = countings(descriptors.pair_set)
    assert (own.name, hit.name) == (OWN_TILE, HIT_RATE)
    assert descriptors.rank(own).rank.tolist() == [0, 1]
    assert descriptors.rank(hit).rank.tolist() == [0, 0]
    assert descriptors.ranking().rank.tolist() == [0, 1]
