"""How sure a measured change of recall is: the same queries before and after, so statistics of pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
_MANY = 1e9


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
    """The change from `before` to `after`, bool [Q] each: whether a query was a hit. Raises ValueError when Q is 0."""
    queries = len(before)
    if not queries:
        raise ValueError("no queries")
    lost = int(np.count_nonzero(before & ~after))
    gained = int(np.count_nonzero(after & ~before))
    return Drop(queries, lost, gained, *interval(lost, gained, queries))


def interval(lost: float, gained: float, queries: float) -> tuple[float, float]:
    """Lower and upper end of the drop, in shares of 1, with 95 % confidence.

    Tango's score interval for the difference of paired proportions, which holds for few changes and for none. Source:
    T. Tango, Statistics in Medicine 17, 1998.
    """
    middle = (lost - gained) / queries

    def score(drop: float) -> float:
        linear = -lost - gained + (2 * queries - lost + gained) * drop
        constant = -gained * drop * (1 - drop)
        likely_gain = (sqrt(max(linear**2 - 8 * queries * constant, 0)) - linear) / (4 * queries)
        variance = queries * (2 * likely_gain + drop * (1 - drop))
        return (lost - gained - queries * drop) / sqrt(variance) if variance > 0 else 0.0

    return _root(lambda drop: score(drop) - _Z, -1.0, middle), _root(lambda drop: score(drop) + _Z, middle, 1.0)


def mcnemar(lost: int, gained: int) -> float:
    """How often chance alone gives counts as uneven as these or more so, if a changed query is as likely to be gained
    as lost: McNemar's exact test, two-sided. 1 where nothing changed.

    Source: Q. McNemar, Psychometrika 12, 1947; exact form: a binomial test with share 1/2.
    """
    changed = lost + gained
    ways, tail = 1, 0
    for fewer in range(min(lost, gained) + 1):
        tail += ways
        ways = ways * (changed - fewer) // (fewer + 1)
    return min(1.0, 2 * tail / (1 << changed))


def pairs_to_be_sure(lost: int, gained: int, queries: int, tolerance: float) -> int | None:
    """About how many queries, with as many changes among each hundred as in these `queries`, put the whole interval of
    the drop within `tolerance` (in shares of 1); to two digits, upwards. None where the drop itself is not within it,
    or a billion are too few.

    A gain is taken for luck: the drop of the many is 0 then.
    """
    went = max(lost, (lost + gained) / 2)
    came = lost + gained - went
    if (went - came) / queries >= tolerance:
        return None

    def sure(many: float) -> bool:
        return interval(went * many / queries, came * many / queries, many)[1] <= tolerance

    enough = 1.0
    while not sure(enough):
        if enough > _MANY:
            return None
        enough *= 2
    short = enough / 2
    while enough - short > 0.001 * enough:
        middle = (short + enough) / 2
        short, enough = (short, middle) if sure(middle) else (middle, enough)
    step = int(10.0 ** max(0, len(str(int(enough))) - 2))
    return ceil(enough / step) * step


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where `falling`, positive at `low`, crosses zero; to a millionth of a share."""
    while high - low > 1e-6:
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
