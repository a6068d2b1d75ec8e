"""Search by correlation over the heading: the same as one pair after another, and exact in blocks and threads."""

import numpy as np
import pytest
from numpy.typing import NDArray

from geodtr.runtime.recall import rank
from geodtr.runtime.search.correlation import headings
from geodtr.runtime.search.exact import search_correlated
from geodtr.runtime.spec import Correlation, Descriptors

SCORER = Correlation(columns=16, seen=5, values=6, field_of_view=112.5)


def rows(count: int, size: int, seed: int) -> Descriptors:
    drawn = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def one_by_one(
    queries: Descriptors, references: Descriptors, scorer: Correlation
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores and columns, [Q, N] each, of every pair by itself, as the paper describes it."""
    scores, columns = np.empty((2, len(queries), len(references)))
    for q, query in enumerate(queries.astype(np.float64)):
        for n, reference in enumerate(references.astype(np.float64).reshape(-1, scorer.columns, scorer.values)):
            crops = [np.roll(reference, -column, axis=0)[: scorer.seen].ravel() for column in range(scorer.columns)]
            products = [crop @ query for crop in crops]
            columns[q, n] = best = int(np.argmax(products))
            scores[q, n] = products[best] / np.linalg.norm(crops[best])
    return scores, columns.astype(np.int64)


@pytest.mark.parametrize("seen", [1, 5, 15, 16])
def test_scores_and_headings_equal_each_pair_compared_by_itself(seen: int) -> None:
    scorer = Correlation(columns=16, seen=seen, values=6, field_of_view=22.5 * seen)
    queries, references = rows(3, seen * 6, 0), rows(200, 96, 1)
    scores, columns = one_by_one(queries, references, scorer)
    hits = search_correlated(queries, references, 7, scorer)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(hits.rows, expected)
    np.testing.assert_allclose(hits.scores, np.take_along_axis(scores, expected, 1), atol=1e-6)
    turned = (np.take_along_axis(columns, expected, 1) * 22.5 + 22.5 * seen / 2 - 180) % 360
    assert hits.headings is not None
    np.testing.assert_allclose(hits.headings, turned)


def test_a_search_in_many_blocks_and_among_some_rows_gives_the_same() -> None:
    references = rows(30_000, 96, 2)
    queries = rows(4, 30, 3)
    whole = search_correlated(queries, references, 20, SCORER)
    parts = [
        search_correlated(queries, references[start : start + 1000], 20, SCORER) for start in range(0, 30_000, 1000)
    ]
    scores = np.concatenate([part.scores for part in parts], axis=1)
    numbers = np.concatenate([part.rows + 1000 * index for index, part in enumerate(parts)], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(whole.rows, np.take_along_axis(numbers, order, 1))
    among = np.arange(0, 30_000, 7)
    some = search_correlated(queries, references, 20, SCORER, among)
    np.testing.assert_array_equal(some.rows, among[search_correlated(queries, references[among], 20, SCORER).rows])


def test_a_query_cut_out_of_a_reference_finds_it_and_its_heading() -> None:
    references = rows(500, 96, 4)
    cut = np.roll(references[321].reshape(16, 6), -11, axis=0)[:5].ravel()
    hits = search_correlated((cut / np.linalg.norm(cut))[None], 3 * references, 1, SCORER)
    assert hits.rows.tolist() == [[321]]
    assert hits.scores[0, 0] == pytest.approx(1, abs=1e-6)
    assert hits.headings is not None
    assert hits.headings.tolist() == headings(np.array([[11]]), SCORER).tolist() == [[(11 * 22.5 + 56.25 - 180) % 360]]


def test_of_equal_orientations_and_references_the_first_wins() -> None:
    references = np.tile(np.full((1, 96), 96**-0.5, np.float32), (40, 1))
    hits = search_correlated(np.full((1, 30), 30**-0.5, np.float32), references, 3, SCORER)
    assert hits.rows.tolist() == [[0, 1, 2]]
    assert hits.headings is not None
    assert hits.headings.tolist() == headings(np.zeros((1, 3), np.int64), SCORER).tolist()


def test_an_empty_map_scores_nothing() -> None:
    references = np.concatenate([np.zeros((1, 96), np.float32), rows(3, 96, 5)])
    hits = search_correlated(rows(1, 30, 6), references, 4, SCORER)
    assert hits.rows[0, -1] == 0
    assert hits.scores[0, -1] == 0


def test_recall_ranks_by_the_scorer() -> None:
    queries, references = rows(20, 30, 7), rows(20, 96, 8)
    scores, _ = one_by_one(queries, references, SCORER)
    ranking = rank(queries, references, scorer=SCORER)
    np.testing.assert_array_equal(ranking.rank, (scores > np.diag(scores)[:, None]).sum(axis=1))
