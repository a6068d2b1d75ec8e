"""Recall follows the published convention for data sets of any shape, and reports what the convention hides."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geodtr.runtime import matches as module
from geodtr.runtime.errors import DescriptorError
from geodtr.runtime.matches import Matches
from geodtr.runtime.recall import Ranking, average_precision, rank, recall, recall_at, wilson_band


@dataclass(frozen=True, slots=True)
class Case:
    """Descriptors of small whole numbers, with exact products: many ties and no rounding."""

    queries: NDArray[np.float32]
    references: NDArray[np.float32]
    truth: dict[int, set[int]]
    ignored: dict[int, set[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count, references, size = draw(st.integers(1, 8)), draw(st.integers(2, 12)), draw(st.integers(1, 3))
    values = st.integers(-2, 2)

    def rows(number: int) -> NDArray[np.float32]:
        flat = draw(st.lists(values, min_size=number * size, max_size=number * size))
        return np.array(flat, np.float32).reshape(number, size)

    some, any_ = (st.sets(st.integers(0, references - 1), min_size=least) for least in (1, 0))
    return Case(
        rows(count),
        rows(references),
        {query: draw(some) for query in range(count)},
        {query: draw(any_) for query in range(count)},
    )


def matches(of: dict[int, set[int]]) -> Matches:
    rows = [(query, reference) for query in of for reference in of[query]]
    return Matches(*np.array(rows, np.int64).reshape(-1, 2).T)


@settings(deadline=None)
@given(case=cases(), block=st.integers(1, 40))
def test_ranks_equal_a_count_one_by_one(case: Case, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        ranking = rank(case.queries, case.references, matches(case.truth), matches(case.ignored))
    for query, row in enumerate(case.queries):
        scores = [float(np.dot(row, reference)) for reference in case.references]
        own = max(scores[reference] for reference in case.truth[query])
        wrong = set(range(len(scores))) - case.truth[query] - case.ignored[query]
        assert ranking.rank[query] == sum(scores[reference] > own for reference in wrong)
        assert ranking.ties[query] == sum(scores[reference] == own for reference in wrong)
        nearest = max((scores[reference] for reference in wrong), default=-np.inf)
        assert ranking.margin[query] == own - nearest
        assert ranking.right[query] in case.truth[query]
        assert scores[ranking.right[query]] == own
        assert not wrong or (ranking.wrong[query] in wrong and scores[ranking.wrong[query]] == nearest)


@settings(deadline=None)
@given(case=cases(), block=st.integers(1, 40))
def test_average_precision_is_the_area_below_the_curve_of_each_whole_ranking(case: Case, block: int) -> None:
    """Walked down reference by reference, as the releases of University-1652 (trapezoids) and scikit-learn (steps) do;
    true references come before wrong ones that are as close.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        measured = average_precision(case.queries, case.references, matches(case.truth), matches(case.ignored))
    steps, trapezoids = [], []
    for query, row in enumerate(case.queries):
        scores = case.references @ row
        counted = [r for r in range(len(scores)) if r in case.truth[query] or r not in case.ignored[query]]
        order = sorted(counted, key=lambda r: (-scores[r], r not in case.truth[query]))
        count, below, stepped, last = 0, 0.0, 0.0, 1.0
        for seen, reference in enumerate(order, start=1):
            share = 1 / len(case.truth[query])
            if reference in case.truth[query]:
                count += 1
                below += share * (last + count / seen) / 2
                stepped += share * count / seen
            last = count / seen
        steps.append(stepped)
        trapezoids.append(below)
    assert measured.steps == pytest.approx(np.mean(steps))
    assert measured.trapezoids == pytest.approx(np.mean(trapezoids))


@settings(deadline=None)
@given(case=cases())
def test_recall_grows_with_k_and_counting_ties_as_misses_never_helps(case: Case) -> None:
    ranking = rank(case.queries, case.references, matches(case.truth), matches(case.ignored))
    shares = recall_at(ranking, range(1, len(case.references) + 1))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    measured = recall(ranking)
    assert measured.pessimistic_at_1 <= measured.at_1
    assert measured.at_1 - measured.pessimistic_at_1 <= measured.tied + 1e-9


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_a_second_true_tile_helps_and_never_hurts() -> None:
    references = np.eye(4, dtype=np.float32)
    query = unit(np.array([[0.1, 0.9, 0.8, 0.2]]))
    assert rank(query, references, Matches(np.array([0]), np.array([2]))).rank == [1]
    assert rank(query, references, Matches(np.array([0, 0]), np.array([2, 1]))).rank == [0]


def test_semi_positives_are_left_out_and_distractors_are_not() -> None:
    references = np.eye(4, dtype=np.float32)
    query = unit(np.array([[0.5, 0.9, 0.7, 0.2]]))
    own, semi = Matches(np.array([0]), np.array([0])), Matches(np.array([0]), np.array([1]))
    assert rank(query, references, own).rank == [2]
    assert rank(query, references, own, semi).rank == [1]


def test_a_tile_that_is_true_and_semi_positive_is_true() -> None:
    references = np.eye(3, dtype=np.float32)
    own = Matches(np.array([0]), np.array([0]))
    ranking = rank(references[:1], references, own, own)
    assert (ranking.rank[0], ranking.ties[0]) == (0, 0)


# 101 x 64 is a size at which BLAS rounds the scores of equal references differently, by their column.
@pytest.mark.parametrize(("count", "size"), [(50, 4), (101, 64), (1003, 512)])
def test_a_collapsed_model_is_detected(count: int, size: int) -> None:
    same = np.repeat(unit(np.random.default_rng(0).standard_normal((1, size))), count, axis=0)
    collapsed = recall(rank(same, same))
    assert (collapsed.at_1, collapsed.tied, collapsed.pessimistic_at_1) == (1.0, 1.0, 0.0)
    assert collapsed.alike == pytest.approx(1, abs=1e-5)
    assert collapsed.suspicious


def test_a_nearly_collapsed_model_is_detected_without_ties() -> None:
    random = np.random.default_rng(0)
    queries, references = (unit(1 + 1e-3 * random.standard_normal((300, 64))) for _ in range(2))
    nearly = recall(rank(queries, references))
    assert nearly.at_1 < 0.1
    assert nearly.suspicious


def test_collapsed_queries_among_good_references_are_detected() -> None:
    references = unit(np.random.default_rng(0).standard_normal((300, 64)))
    assert recall(rank(np.repeat(references[:1], 300, axis=0), references)).collapsed


def test_a_good_model_is_not_suspicious() -> None:
    random = np.random.default_rng(0)
    references = random.standard_normal((500, 64))
    result = recall(rank(unit(references + random.standard_normal((500, 64))), unit(references)))
    assert result.at_1 > 0.5
    assert result.tied == 0
    assert abs(result.alike) < 0.01
    assert not result.suspicious


def test_a_tile_listed_twice_is_a_tie() -> None:
    references = unit(np.random.default_rng(0).standard_normal((101, 64)))
    references[100] = references[3]
    ranking = rank(references, references)
    assert np.flatnonzero(ranking.ties).tolist() == [3, 100]
    assert not ranking.rank.any()


@pytest.mark.parametrize(("references", "percent", "plus_1"), [(8884, 88, 89), (92802, 928, 929), (50, 1, 1)])
def test_both_conventions_of_one_percent(references: int, percent: int, plus_1: int) -> None:
    for shift, at_1_percent, at_1_percent_plus_1 in (
        (percent - 1, 1, 1),
        (percent, 0, float(plus_1 > percent)),
        (plus_1, 0, 0),
    ):
        row = np.zeros(1, np.int64)
        measured = recall(Ranking(row + shift, row, row.astype(np.float32), row, row, references, 0.0))
        assert (measured.at_1_percent, measured.at_1_percent_plus_1) == (at_1_percent, at_1_percent_plus_1)


def test_memory_does_not_grow_with_the_square_of_the_gallery() -> None:
    rows = unit(np.random.default_rng(0).standard_normal((20_000, 64)))
    tracemalloc.start()
    try:
        ranking = rank(rows, rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not ranking.rank.any()
    # All scores at once would be 1.6 GB.
    assert peak < 150e6


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (Matches(np.array([0, 1]), np.array([0, 1])), "no true reference, the first in row 2"),
        (Matches(np.arange(3), np.array([0, 1, 7])), "row 0 or 7; allowed are 0 to 3"),
        (Matches(np.arange(3), np.array([0, -1, 2])), "row -1 or 2"),
        (Matches(np.arange(4), np.arange(4)), "row 0 or 3; allowed are 0 to 2"),
    ],
)
def test_matches_of_the_wrong_shape_are_refused(truth: Matches, expected: str) -> None:
    references = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match=expected):
        rank(references[:3], references, truth)


def test_matches_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="rising order"):
        Matches(np.array([1, 0]), np.array([0, 1]))


def test_wrong_shapes_are_refused() -> None:
    rows = np.eye(4, dtype=np.float32)
    for queries, references in ((rows, rows[:3]), (rows[:1], rows[:1]), (rows, rows[:, :2]), (rows[:0], rows[:0])):
        with pytest.raises(DescriptorError):
            rank(queries, references)


def test_the_band_holds_the_share_and_narrows_with_the_queries() -> None:
    low, high = wilson_band(np.array([0.0, 0.5, 1.0]), 100)
    assert low[0] == pytest.approx(0, abs=1e-12)
    assert high[2] == pytest.approx(1, abs=1e-12)
    # Wilson, 50 of 100 at 95 %: 0.404 to 0.596.
    assert (low[1], high[1]) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    narrow = wilson_band(np.array([0.5]), 10_000)
    assert narrow[1][0] - narrow[0][0] < 0.02
