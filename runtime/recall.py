"""Recall at K: the rank of each query's true reference among all references.

Knows descriptors and row numbers; knows nothing of images, models or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import DescriptorError
from geodtr.runtime.search.correlation import correlating
from geodtr.runtime.spec import Correlation, Descriptors

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
COLLAPSED = 0.99
"""Mean cosine between different images above which a model has collapsed; random weights stay below it."""
_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True)
class Matches:
    """Which references belong to which queries, as pairs of row numbers: `query` and `reference`, int64 [M] each.

    `query` is in rising order; a query may have several references, and a reference several queries.
    Raises ValueError when the order or the shapes are wrong.
    """

    query: NDArray[np.int64]
    reference: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.query.ndim != 1 or self.query.shape != self.reference.shape or (np.diff(self.query) < 0).any():
            raise ValueError(
                f"Matches are two columns [M], queries in rising order; given are {self.query.shape} and "
                f"{self.reference.shape}."
            )

    @classmethod
    def one_to_one(cls, count: int) -> "Matches":
        """Row i belongs to row i."""
        return cls(np.arange(count), np.arange(count))

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The matches of queries `start` to `stop`: query rows counted from `start`, and reference rows."""
        first, last = np.searchsorted(self.query, (start, stop))
        return self.query[first:last] - start, self.reference[first:last]

    def first(self, queries: int) -> "Matches":
        """The matches of the first `queries` queries."""
        return Matches(*self.between(0, queries))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rank of each query's true reference among `references` references.

    `rank` int64 [Q]: the number of references strictly closer than the true one (0: found at once).
    `ties` int64 [Q]: the number of wrong references exactly as close as the true one.
    `margin` float32 [Q]: how much closer the true reference is than the nearest wrong one, in cosine; infinite where
    there is no wrong one. `wrong` int64 [Q]: the row of that nearest wrong reference.
    `alike`: mean cosine between two different rows, of queries or of references, whichever is larger.
    """

    rank: NDArray[np.int64]
    ties: NDArray[np.int64]
    margin: NDArray[np.float32]
    wrong: NDArray[np.int64]
    references: int
    alike: float


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of queries whose true reference ranks within K, for K = 1, 5, 10 and 1 % of the references.

    R@1% has two conventions: `at_1_percent` takes K = int(0.01 N), as GeoDTR, SAFA, L2LTR, DSM, TransGeo and
    Sample4Geo do; `at_1_percent_plus_1` takes K = int(0.01 N) + 1, as OriCNN, CVFT and VIGOR do.
    `tied` is the share of queries with a wrong reference exactly as close as the true one. The published convention
    counts those as hits, so a collapsed model would score 1.0: read it first. `pessimistic_at_1` counts them as misses.
    `alike` is the mean cosine between different images: a model that has nearly collapsed has no ties, because of
    rounding, and its recall is chance.
    """

    at_1: float
    at_5: float
    at_10: float
    at_1_percent: float
    at_1_percent_plus_1: float
    pessimistic_at_1: float
    queries: int
    references: int
    tied: float
    alike: float

    @property
    def collapsed(self) -> bool:
        """Whether the descriptors of different images are nearly the same."""
        return self.alike > COLLAPSED

    @property
    def suspicious(self) -> bool:
        """Whether the figures cannot be trusted: the descriptors have collapsed, or ties are many."""
        return self.collapsed or self.tied > 0.01


def one_percent(references: int) -> int:
    """K of R@1%: int(0.01 N) as GeoDTR, SAFA and TransGeo count it (88 for CVUSA's 8,884), but at least 1."""
    return max(1, int(0.01 * references))


def rank(
    queries: Descriptors,
    references: Descriptors,
    truth: Matches | None = None,
    ignored: Matches | None = None,
    scorer: Correlation | None = None,
) -> Ranking:
    """Rank each query's nearest true reference among all references by cosine similarity, in blocks of bounded memory.

    queries [Q, D], references [N, D]: float32, unit rows. `truth` names at least one reference of each query; None
    means that row i belongs to row i. References in `ignored` are left out of their query's ranking, as VIGOR does with
    semi-positives; one that is in `truth` as well is true. `scorer`, if given, compares instead of the cosine. Raises
    DescriptorError when shapes do not fit, there are fewer than two references, or a value is not finite (which would
    count as a hit); ValueError when a query has no true reference, or a match names a row that does not exist.
    Source: strictly-closer counting as in SAFA and GeoDTR (AAAI 2023), section 4.1.
    """
    if truth is None:
        if len(queries) != len(references):
            raise DescriptorError(
                f"Recall ranks each query among as many references; given are {queries.shape} and {references.shape}."
            )
        truth = Matches.one_to_one(len(queries))
    _check(queries, references, scorer)
    _check_matches(truth, ignored, len(queries), len(references))
    ranks, ties, wrong = (np.empty(len(queries), np.int64) for _ in range(3))
    margin = np.empty(len(queries), np.float32)
    first = _first_of_equals(references)
    # A scorer lays each query out at every column.
    width = len(references) if scorer is None else scorer.columns * max(len(references), scorer.reference_size)
    for start, stop in _blocks(len(queries), width):
        if scorer is None:
            scores = queries[start:stop] @ references.T
        else:
            scores = np.ascontiguousarray(correlating(scorer)(queries[start:stop]).multiply(references).T)
        if first is not None:
            scores = np.take(scores, first, axis=1)
        true = truth.between(start, stop)
        own = np.full(stop - start, -np.inf, scores.dtype)
        np.maximum.at(own, true[0], scores[true])
        # Neither another true reference nor an ignored one may count against the query.
        scores[true] = -np.inf
        if ignored is not None:
            scores[ignored.between(start, stop)] = -np.inf
        ranks[start:stop] = np.count_nonzero(scores > own[:, None], axis=1)
        ties[start:stop] = np.count_nonzero(scores == own[:, None], axis=1)
        wrong[start:stop] = scores.argmax(axis=1)
        margin[start:stop] = own - scores[np.arange(stop - start), wrong[start:stop]]
    return Ranking(ranks, ties, margin, wrong, len(references), max(_alike(queries), _alike(references)))


def _blocks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Start and stop of runs of rows that hold about `_BLOCK` values together."""
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _first_of_equals(rows: Descriptors) -> NDArray[np.int64] | None:
    """For each row the first one with the same values, int64 [N]; None when all differ.

    A matrix product may round the scores of equal references differently in different columns. Ties decide whether a
    collapsed model looks perfect or worthless, so they must not depend on that.
    """
    seen: dict[bytes, int] = {}
    first = [seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), index) for index, row in enumerate(rows)]
    return None if len(seen) == len(rows) else np.array(first, np.int64)


def _alike(rows: Descriptors) -> float:
    """Mean product of two different rows; 0 where there is one row only."""
    count = len(rows)
    if count < 2:
        return 0.0
    total = rows.sum(axis=0, dtype=np.float64)
    own = np.einsum("nd,nd->n", rows, rows).sum(dtype=np.float64)
    return float((total @ total - own) / (count * (count - 1)))


def _check(queries: Descriptors, references: Descriptors, scorer: Correlation | None) -> None:
    sizes = queries.shape[1:], references.shape[1:]
    fit = sizes[0] == sizes[1] if scorer is None else sizes == ((scorer.query_size,), (scorer.reference_size,))
    if queries.ndim != 2 or not fit or len(queries) < 1 or len(references) < 2:
        raise DescriptorError(
            f"Recall ranks queries [Q, D] among at least two references [N, D]; given are {queries.shape} and "
            f"{references.shape}."
        )
    for name, rows in (("query", queries), ("reference", references)):
        finite = np.concatenate([np.isfinite(rows[start:stop]).all(axis=1) for start, stop in _blocks(*rows.shape)])
        bad = len(finite) - np.count_nonzero(finite)
        if bad:
            raise DescriptorError(
                f"{bad} {name} descriptors are not finite, the first in row {np.argmin(finite)}: the model is broken."
            )


def _check_matches(truth: Matches, ignored: Matches | None, queries: int, references: int) -> None:
    for matches in (truth, ignored):
        if matches is not None and len(matches.query):
            for rows, count in ((matches.query, queries), (matches.reference, references)):
                if rows.min() < 0 or rows.max() >= count:
                    raise ValueError(f"A match names row {rows.min()} or {rows.max()}; allowed are 0 to {count - 1}.")
    alone = np.flatnonzero(np.bincount(truth.query, minlength=queries) == 0)
    if len(alone):
        raise ValueError(f"{len(alone)} queries have no true reference, the first in row {alone[0]}.")


def recall(ranking: Ranking) -> Recall:
    """Summarise a ranking as the field's recall figures, each between 0 and 1."""
    percent = one_percent(ranking.references)
    plus_1 = int(0.01 * ranking.references) + 1
    at_1, at_5, at_10, at_1_percent, at_1_percent_plus_1 = recall_at(ranking, (1, 5, 10, percent, plus_1))
    return Recall(
        at_1,
        at_5,
        at_10,
        at_1_percent,
        at_1_percent_plus_1,
        pessimistic_at_1=float((ranking.rank + ranking.ties < 1).mean()),
        queries=len(ranking.rank),
        references=ranking.references,
        tied=float((ranking.ties > 0).mean()),
        alike=ranking.alike,
    )


def recall_at(ranking: Ranking, ks: Sequence[int]) -> list[float]:
    """Share of queries with rank below K, for each K."""
    return [float((ranking.rank < k).mean()) for k in ks]


def wilson_band(shares: NDArray[np.float64], queries: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % confidence interval of each measured share: lower and upper ends, of `shares`' shape.

    It covers the choice of queries, not the seed of the training. Source: Wilson, 1927.
    """
    z = Z_95
    widened = 1 + z**2 / queries
    centre = (shares + z**2 / (2 * queries)) / widened
    half = z / widened * np.sqrt(shares * (1 - shares) / queries + z**2 / (4 * queries**2))
    return centre - half, centre + half
