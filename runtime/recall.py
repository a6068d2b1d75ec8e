"""Recall at K, the rank of each query's true reference among all references; and average precision, of several.

Knows descriptors and row numbers; knows nothing of images, models or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.matches import Matches, checked_matches, leave_out, scores_in_blocks
from geodtr.runtime.spec import Correlation, Descriptors

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
COLLAPSED = 0.99
"""Mean cosine between different images above which a model has collapsed; random weights stay below it."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rank of each query's true reference among `references` references.

    `rank` int64 [Q]: the number of references strictly closer than the true one (0: found at once).
    `ties` int64 [Q]: the number of wrong references exactly as close as the true one.
    `margin` float32 [Q]: how much closer the true reference is than the nearest wrong one, in cosine; infinite where
    there is no wrong one. `right`, `wrong` int64 [Q]: the rows of the nearest true reference and the nearest wrong one.
    `alike`: mean cosine between two different rows, of queries or of references, whichever is larger.
    """

    rank: NDArray[np.int64]
    ties: NDArray[np.int64]
    margin: NDArray[np.float32]
    right: NDArray[np.int64]
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
    def telling(self) -> tuple[float | None, ...]:
        """R@1, R@5, R@10 and R@1%; None where K takes in all references, which every model finds."""
        ks = (1, 5, 10, one_percent(self.references))
        shares = (self.at_1, self.at_5, self.at_10, self.at_1_percent)
        return tuple(share if k < self.references else None for k, share in zip(ks, shares, strict=True))

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
    truth = checked_matches(queries, references, truth, ignored, scorer)
    ranks, ties, right, wrong = (np.empty(len(queries), np.int64) for _ in range(4))
    margin = np.empty(len(queries), np.float32)
    for start, stop, scores in scores_in_blocks(queries, references, scorer):
        true = truth.between(start, stop)
        own = np.full(stop - start, -np.inf, scores.dtype)
        np.maximum.at(own, true[0], scores[true])
        nearest = np.flatnonzero(scores[true] == own[true[0]])
        right[start + true[0][nearest]] = true[1][nearest]
        leave_out(scores, start, stop, truth, ignored)
        ranks[start:stop] = np.count_nonzero(scores > own[:, None], axis=1)
        ties[start:stop] = np.count_nonzero(scores == own[:, None], axis=1)
        wrong[start:stop] = scores.argmax(axis=1)
        margin[start:stop] = own - scores[np.arange(stop - start), wrong[start:stop]]
    return Ranking(ranks, ties, margin, right, wrong, len(references), max(_alike(queries), _alike(references)))


def _alike(rows: Descriptors) -> float:
    """Mean product of two different rows; 0 where there is one row only."""
    count = len(rows)
    if count < 2:
        return 0.0
    total = rows.sum(axis=0, dtype=np.float64)
    own = np.einsum("nd,nd->n", rows, rows).sum(dtype=np.float64)
    return float((total @ total - own) / (count * (count - 1)))


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


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Mean over the queries of the average precision, between 0 and 1.

    With the true references of a query at the ranks r_1 < r_2 < ... of the whole ranking, counted from 1, precision
    at the i-th is i / r_i. `steps` is the mean of these, as scikit-learn and GTA-UAV (AAAI 2025) count it.
    `trapezoids` averages it with the precision just before, (i - 1) / (r_i - 1), which is 1 where r_i is 1, as
    University-1652 (ACM MM 2020), SUES-200 and DenseUAV do: the lower of the two.
    """

    steps: float
    trapezoids: float


def average_precision(
    queries: Descriptors,
    references: Descriptors,
    truth: Matches | None = None,
    ignored: Matches | None = None,
    scorer: Correlation | None = None,
) -> AveragePrecision:
    """Average precision of the rankings that `recall.rank` makes, with the same arguments, errors and rule for ties:
    only references that are strictly closer come before a true one.
    """
    truth = checked_matches(queries, references, truth, ignored, scorer)
    steps, trapezoids = (np.empty(len(queries), np.float64) for _ in range(2))
    for start, stop, scores in scores_in_blocks(queries, references, scorer):
        rows, tiles = truth.between(start, stop)
        own = scores[rows, tiles]
        leave_out(scores, start, stop, truth, ignored)
        nearest_first = np.lexsort((-own, rows))
        rows, own = rows[nearest_first], own[nearest_first]
        closer = np.array([np.count_nonzero(scores[row] > score) for row, score in zip(rows, own, strict=True)])
        counts = np.bincount(rows, minlength=stop - start)
        before = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        place = before + closer
        precision = (before + 1) / (place + 1)
        earlier = np.where(place > 0, before / np.maximum(place, 1), 1.0)
        steps[start:stop] = np.bincount(rows, precision, stop - start) / counts
        trapezoids[start:stop] = np.bincount(rows, (precision + earlier) / 2, stop - start) / counts
    return AveragePrecision(float(steps.mean()), float(trapezoids.mean()))
