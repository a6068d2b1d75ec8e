"""The best references of each query, out of scores that come block by block and may be uncertain.

Knows pairs of a query and a reference by their numbers, and what they score; knows nothing of descriptors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Exact = Callable[[Rows, Rows], Scores]
"""The cosines float32 [P] of queries int64 [P] with references int64 [P]."""

_ADDED = 1024
"""So many pairs wait at least, until they are gone through together."""
_OPEN = 1 << 20
"""So many uncertain pairs are kept at most."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """A query and a reference each, int64 [P], and between what their cosine lies, float32 [P]; no NaN."""

    queries: Rows
    references: Rows
    lowest: Scores
    highest: Scores

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, which: NDArray[Any]) -> "Pairs":
        """Those of the numbers `which`, or for which it is true."""
        return Pairs(self.queries[which], self.references[which], self.lowest[which], self.highest[which])


class Shortlist:
    """The `kept` best pairs so far of each of `queries` queries; of equal ones, those of the lowest numbers.

    Cosines that are uncertain are asked of `exact`: on the way, of those pairs alone that seem to be among the best and
    by that rule out most of the others; in the end, of those that are left.
    """

    def __init__(self, queries: int, kept: int, exact: Exact | None = None) -> None:
        self.thresholds = np.full(queries, np.nan, np.float32)
        """Of each query, the cosine that `kept` references have or exceed; NaN while there are not so many."""
        self._kept = kept
        self._exact = exact
        self._best = _joined([])
        """By query, the best first; all are certain."""
        self._open = list[Pairs]()
        self._added = list[Pairs]()

    def add(self, pairs: Pairs) -> None:
        """Take `pairs` into account. One below its query's threshold need not be brought; where all are certain, one
        of a higher number than any before that equals it need not be either.
        """
        self._added.append(pairs)
        # The first are gone through at once: their thresholds spare the others.
        if not len(self._best) or sum(map(len, self._added)) > max(_ADDED, 8 * self._kept * len(self.thresholds)):
            self._settle()

    def best(self) -> Pairs:
        """The best of what was added, by query, the best first; their cosines are certain."""
        self._settle()
        self._close()
        return self._best

    def _settle(self) -> None:
        added = self._passing(_joined(self._added))
        self._added.clear()
        certain = added.lowest == added.highest
        if not certain.all():
            middle = (added.lowest + added.highest) / 2
            certain |= self._likeliest(added, self._kept) & ~(middle < self.thresholds[added.queries])
        self._keep(self._certain(added.take(certain)))
        self._open.append(added.take(~certain))
        if sum(map(len, self._open)) > _OPEN:
            self._close()

    def _close(self) -> None:
        """Make certain of what is open, the likeliest first: they rule out others."""
        left, looked_at = _joined(self._open), self._kept
        self._open.clear()
        while len(left := self._passing(left)):
            first = self._likeliest(left, looked_at)
            self._keep(self._certain(left.take(first)))
            left, looked_at = left.take(~first), 4 * looked_at

    def _passing(self, pairs: Pairs) -> Pairs:
        return pairs.take(~(pairs.highest < self.thresholds[pairs.queries]))

    def _likeliest(self, pairs: Pairs, count: int) -> NDArray[np.bool_]:
        """Which are the first `count` of their query."""
        order = np.lexsort((-pairs.highest, pairs.queries))
        chosen = np.empty(len(pairs), np.bool_)
        chosen[order] = _ranks(pairs.queries[order]) < count
        return chosen

    def _certain(self, pairs: Pairs) -> Pairs:
        """The same with their cosines, where they were uncertain."""
        unknown = np.flatnonzero(pairs.lowest < pairs.highest)
        if self._exact is None or not len(unknown):
            return pairs
        cosines = pairs.lowest.copy()
        cosines[unknown] = self._exact(pairs.queries[unknown], pairs.references[unknown])
        return Pairs(pairs.queries, pairs.references, cosines, cosines)

    def _keep(self, pairs: Pairs) -> None:
        """Take the best of what was best and of `pairs`, which are certain."""
        rivals = _joined([self._best, pairs])
        rivals = rivals.take(np.lexsort((rivals.references, -rivals.lowest, rivals.queries)))
        ranks = _ranks(rivals.queries)
        last = rivals.take(ranks == self._kept - 1)
        self.thresholds[last.queries] = last.lowest
        self._best = rivals.take(ranks < self._kept)


def _ranks(queries: Rows) -> Rows:
    """The place of each pair among those of its query, of pairs in the order of their queries: 0, 1, ..."""
    first = np.ones(len(queries), np.bool_)
    first[1:] = queries[1:] != queries[:-1]
    places = np.arange(len(queries))
    return places - np.maximum.accumulate(np.where(first, places, 0))


def _joined(parts: Sequence[Pairs]) -> Pairs:
    """All of them, one behind the other."""

    def one(name: str, dtype: type[np.int64] | type[np.float32]) -> NDArray[Any]:
        return np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])

    return Pairs(
        one("queries", np.int64), one("references", np.int64), one("lowest", np.float32), one("highest", np.float32)
    )
