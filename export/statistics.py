"""How sure a measured change of recall is: the same queries before and after, so statistics of pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Hits at rank 1 that went (`lost`) and came (`gained`) among `queries`; `low` and `high` bound the drop in shares
    of 1 with 95 % confidence.
    """

    queries: int
    lost: int
    gained: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The drop in R@1, in shares of 1; negative where more came than went."""
        return (self.lost - self.gained) / self.queries


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Drop:
    """The change from `before` to `after`, bool [Q] each: whether a query was a hit. Raises ValueError when Q is 0.

    The interval is Tango's score interval for the difference of paired proportions, which holds for few changes and for
    none. Source: T. Tango, Statistics in Medicine 17, 1998.
    """
    queries = len(before)
    if not queries:
        raise ValueError("no queries")
    lost = int(np.count_nonzero(before & ~after))
    gained = int(np.count_nonzero(after & ~before))
    middle = (lost - gained) / queries

    def score(drop: float) -> float:
        linear = -lost - gained + (2 * queries - lost + gained) * drop
        constant = -gained * drop * (1 - drop)
        likely_gain = (sqrt(max(linear**2 - 8 * queries * constant, 0)) - linear) / (4 * queries)
        variance = queries * (2 * likely_gain + drop * (1 - drop))
        return (lost - gained - queries * drop) / sqrt(variance) if variance > 0 else 0.0

    low = _root(lambda drop: score(drop) - _Z, -1.0, middle)
    high = _root(lambda drop: score(drop) + _Z, middle, 1.0)
    return Drop(queries, lost, gained, low, high)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where `falling`, positive at `low`, crosses zero; to a millionth of a share."""
    while high - low > 1e-6:
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
