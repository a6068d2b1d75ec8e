"""Recall at K: where each query's true reference stands among all references.

Knows descriptors and row numbers; knows nothing of images, models or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import UserError
from geodtr.runtime.spec import Descriptors

_BLOCK_SCORES = 1 << 24


class DescriptorError(UserError):
    """Descriptors that cannot be ranked: wrong shapes, too few, or values that are not finite."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Which references belong to which queries, as pairs of row numbers: `query` and `reference`, int64 [M] each.

    `query` is in rising order; a query may have several references, and a reference several queries.
    """

    query: NDArray[np.int64]
    reference: NDArray[np.int64]

    @classmethod
    def one_to_one(cls, count: int) -> "Matches":
        """Row i belongs to row i."""
        return cls(np.arange(count), np.arange(count))

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The matches of queries `start` to `stop`: query rows counted from `start`, and reference rows."""
        first, last = np.searchsorted(self.query, (start, stop))
        return self.query[first:last] - start, self.reference[first:last]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where each query's true reference stands among `references` references.

    `rank` int64 [Q]: the number of references strictly closer than the true one (0: found at once).
    `ties` int64 [Q]: the number of wrong references exactly as close as the true one.
    """

    rank: NDArray[np.int64]
    ties: NDArray[np.int64]
    references: int


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of queries whose true reference ranks within K, for K = 1, 5, 10 and 1 % of the references.

    R@1% goes by two conventions: `at_1_percent` takes K = int(0.01 N), as GeoDTR, SAFA, L2LTR, DSM, TransGeo and
    Sample4Geo do; `at_1_percent_plus_1` takes K = int(0.01 N) + 1, as OriCNN, CVFT and VIGOR do.
    `tied` is the share of queries with a wrong reference exactly as close as the true one. The published convention
    counts those as hits, so a collapsed model would score 1.0: read it first. `pessimistic_at_1` counts them as misses.
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

    @property
    def suspicious(self) -> bool:
        """Whether ties are so many that the figures cannot be trusted: descriptors have probably collapsed."""
        return self.tied > 0.01


def one_percent(references: int) -> int:
    """K of R@1%: int(0.01 N) as GeoDTR, SAFA and TransGeo count it (88 for CVUSA's 8,884), but at least 1."""
    return max(1, int(0.01 * references))


def rank(
    queries: Descriptors, references: Descriptors, truth: Matches | None = None, ignored: Matches | None = None
) -> Ranking:
    """Rank each query's nearest true reference among all references by cosine similarity, in blocks of bounded memory.

    queries [Q, D], references [N, D]: float32, unit rows. `truth` names at least one reference of each query; None
    means that row i belongs to row i. References in `ignored` are left out of their query's ranking, as VIGOR does with
    semi-positives. Raises DescriptorError when shapes do not fit, there are fewer than two references, or a value is
    not finite (which would count as a hit).
    Source: strictly-closer counting as in SAFA and GeoDTR (AAAI 2023), section 4.1.
    """
    if truth is None:
        if queries.shape != references.shape:
            raise DescriptorError(
                f"Recall ranks each query among as many references; given are {queries.shape} and {references.shape}."
            )
        truth = Matches.one_to_one(len(queries))
    _check(queries, references)
    count = len(queries)
    ranks, ties = np.empty(count, np.int64), np.empty(count, np.int64)
    block = max(1, _BLOCK_SCORES // len(references))
    for start in range(0, count, block):
        stop = min(start + block, count)
        scores = queries[start:stop] @ references.T
        if ignored is not None:
            scores[ignored.between(start, stop)] = -np.inf
        true = truth.between(start, stop)
        own = np.full(stop - start, -np.inf, scores.dtype)
        np.maximum.at(own, true[0], scores[true])
        # No true reference may count against its own query.
        scores[true] = -np.inf
        ranks[start:stop] = np.count_nonzero(scores > own[:, None], axis=1)
        ties[start:stop] = np.count_nonzero(scores == own[:, None], axis=1)
    return Ranking(ranks, ties, len(references))


def _check(queries: Descriptors, references: Descriptors) -> None:
    if queries.ndim != 2 or queries.shape[1:] != references.shape[1:] or len(queries) < 1 or len(references) < 2:
        raise DescriptorError(
            f"Recall ranks queries [Q, D] among at least two references [N, D]; given are {queries.shape} and "
            f"{references.shape}."
        )
    for name, rows in (("query", queries), ("reference", references)):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise DescriptorError(
                f"{len(bad)} {name} descriptors are not finite, the first in row {bad[0]}: the model is broken."
            )


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
    )


def recall_at(ranking: Ranking, ks: Sequence[int]) -> list[float]:
    """Share of queries with rank below K, for each K."""
    return [float((ranking.rank < k).mean()) for k in ks]
