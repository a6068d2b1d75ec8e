"""Average precision of rankings in which a query may have several true references.

Knows descriptors and row numbers; knows nothing of images, models or files.
"""

from dataclasses import dataclass

import numpy as np

from geodtr.runtime.matches import Matches, checked_matches, leave_out, scores_in_blocks
from geodtr.runtime.spec import Correlation, Descriptors


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
