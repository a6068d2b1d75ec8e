"""What a measured change of recall proves: the same queries before and after, so statistics of pairs.

Knows counts only: hits lost, hits gained, queries. Here is the one rule that turns them into a verdict.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, copysign, inf, sqrt

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.names import Verdict
from geodtr.runtime.recall import Z_95

_Z_WORSE = 3.5
"""McNemar's statistic above which an engine is worse than the model by more than chance.

An engine as good as the model exceeds it with probability 0.00031 at most, for any number of queries (exact
binomial, at the worst number of changed queries): less than once in 1,000 runs with three pairings.
"""
_MANY = 1e9


@dataclass(frozen=True, slots=True)
class Drop:
    """Hits at rank 1 that were `lost` and `gained` among `queries`; `low` and `high` bound the drop in shares of 1 with
    95 % confidence.
    """

    queries: int
    lost: int
    gained: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The drop in R@1, in shares of 1; negative where more hits were gained than lost."""
        return (self.lost - self.gained) / self.queries


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Drop:
    """The change from `before` to `after`, bool [Q] each: whether a query was a hit. Raises ValueError when Q is 0."""
    queries = len(before)
    if not queries:
        raise ValueError("no queries")
    lost = int(np.count_nonzero(before & ~after))
    gained = int(np.count_nonzero(after & ~before))
    return Drop(queries, lost, gained, *interval(lost, gained, queries))


def decide(lost: float, gained: float, queries: float, tolerance: float) -> Verdict:
    """The rule of every recall gate. `tolerance`: the drop in R@1 that is allowed, in shares of 1.

    passed: the upper end of the drop's 95 % interval is within the tolerance. failed: its lower end is beyond the
    tolerance, and the loss is significant by itself (see _Z_WORSE: on few queries the interval alone would fail an
    engine as good as the model up to once in 100 runs). undecided: anything else.

    Two scores answer this, without the interval's roots: the score falls as the assumed drop rises, so it is beyond
    the quantile at the tolerance exactly where the interval ends before it.
    """
    at_tolerance = _score(lost, gained, queries, tolerance)
    if at_tolerance <= -Z_95:
        return "passed"
    if at_tolerance > Z_95 and _score(lost, gained, queries, 0.0) > _Z_WORSE:
        return "failed"
    return "undecided"


def is_within(lost: float, gained: float, queries: float, tolerance: float) -> bool:
    """Whether the measured drop is at most `tolerance`, a fraction of 1, regardless of significance."""
    return lost - gained <= tolerance * queries + 1e-9


def pairs_to_decide(lost: float, gained: float, queries: int, tolerance: float) -> int | None:
    """About how many queries would decide what these leave undecided, if hits change at the same rate; to two digits,
    rounded up. It is the number that makes the verdict passed where the measured drop is within `tolerance` (a share of
    1), and failed where it is beyond.

    A measured gain counts as chance: the drop is taken as 0. None where the verdict is decided already, or a billion
    queries would not decide it.
    """
    if decide(lost, gained, queries, tolerance) != "undecided":
        return None
    if gained > lost:
        lost = gained = (lost + gained) / 2

    def decided(many: float) -> bool:
        return decide(lost * many / queries, gained * many / queries, many, tolerance) != "undecided"

    few, enough = float(queries), 2.0 * queries
    while not decided(enough):
        if enough > _MANY:
            return None
        few, enough = enough, 2 * enough
    while enough - few > 0.001 * enough:
        middle = (few + enough) / 2
        few, enough = (few, middle) if decided(middle) else (middle, enough)
    step = int(10.0 ** max(0, len(str(int(enough))) - 2))
    return ceil(enough / step) * step


def interval(lost: float, gained: float, queries: float) -> tuple[float, float]:
    """Lower and upper end of the drop, in shares of 1, with 95 % confidence.

    Tango's score interval for the difference of paired proportions, which holds for few changes and for none. Source:
    T. Tango, Statistics in Medicine 17, 1998.
    """
    middle = (lost - gained) / queries

    def score(drop: float) -> float:
        return _score(lost, gained, queries, drop)

    return _root(lambda drop: score(drop) - Z_95, -1.0, middle), _root(lambda drop: score(drop) + Z_95, middle, 1.0)


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


def _score(lost: float, gained: float, queries: float, drop: float) -> float:
    """Tango's score: by how many standard deviations the measured drop exceeds an assumed one, whose variance is the
    maximum-likelihood estimate under that assumption. At 0 it is McNemar's statistic, (lost - gained) / sqrt(lost +
    gained).
    """
    linear = -lost - gained + (2 * queries - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    likely_gain = (sqrt(max(linear**2 - 8 * queries * constant, 0)) - linear) / (4 * queries)
    variance = queries * (2 * likely_gain + drop * (1 - drop))
    excess = lost - gained - queries * drop
    if variance <= 0:
        return copysign(inf, excess) if excess else 0.0
    return excess / sqrt(variance)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where `falling`, positive at `low`, crosses zero; to a millionth of a share."""
    while high - low > 1e-6:
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
