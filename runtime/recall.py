"""Recall at K for one-to-one retrieval.

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
class Ranking:
    """Where each query's own reference stands among all references.

    `rank` int64 [N]: the number of references strictly closer than the true one (0: found at once).
    `tied` bool [N]: whether another reference is exactly as close as the true one.
    """

    rank: NDArray[np.int64]
    tied: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of queries whose true reference ranks within K, for K = 1, 5, 10 and 1 % of the references.

    `tied` is the share of queries with another reference exactly as close as the true one: the published convention
    counts those as hits, so a collapsed model would score 1.0. Read it first.
    """

    at_1: float
    at_5: float
    at_10: float
    at_1_percent: float
    queries: int
    tied: float

    @property
    def suspicious(self) -> bool:
        """Whether ties are so many that the figures cannot be trusted: descriptors have probably collapsed."""
        return self.tied > 0.01


def one_percent(references: int) -> int:
    """K of R@1%: int(0.01 N) as GeoDTR, SAFA and TransGeo count it (88 for CVUSA's 8,884), but at least 1."""
    return max(1, int(0.01 * references))


def rank(queries: Descriptors, references: Descriptors) -> Ranking:
    """Rank each query's own row among all references by cosine similarity, in blocks of bounded memory.

    queries, references: float32 [N, D], unit rows, row i belongs to row i. Raises DescriptorError when they differ in
    shape, hold fewer than two rows, or a value that is not finite (which would count as a hit).
    Source: strictly-closer counting as in SAFA and GeoDTR (AAAI 2023), section 4.1.
    """
    if queries.shape != references.shape or queries.ndim != 2 or len(queries) < 2:
        raise DescriptorError(
            f"Recall ranks each of at least two queries among as many references; given are {queries.shape} and "
            f"{references.shape}."
        )
    for name, rows in (("query", queries), ("reference", references)):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise DescriptorError(
                f"{len(bad)} {name} descriptors are not finite, the first in row {bad[0]}: the model is broken."
            )
    count = len(queries)
    ranks, tied = np.empty(count, np.int64), np.empty(count, np.bool_)
    block = max(1, _BLOCK_SCORES // count)
    for start in range(0, count, block):
        stop = min(start + block, count)
        scores = queries[start:stop] @ references.T
        own = scores[np.arange(stop - start), np.arange(start, stop)][:, None]
        ranks[start:stop] = np.count_nonzero(scores > own, axis=1)
        tied[start:stop] = np.count_nonzero(scores == own, axis=1) > 1
    return Ranking(ranks, tied)


def recall(ranking: Ranking) -> Recall:
    """Summarise a ranking as the field's recall figures, each between 0 and 1."""
    count = len(ranking.rank)
    at_1, at_5, at_10, at_1_percent = recall_at(ranking, (1, 5, 10, one_percent(count)))
    return Recall(at_1, at_5, at_10, at_1_percent, queries=count, tied=float(ranking.tied.mean()))


def recall_at(ranking: Ranking, ks: Sequence[int]) -> list[float]:
    """Share of queries with rank below K, for each K."""
    return [float((ranking.rank < k).mean()) for k in ks]
