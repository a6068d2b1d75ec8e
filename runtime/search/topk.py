"""The best references of each query, from scores that come block by block and may be uncertain.

Knows pairs of query and reference numbers and their scores; knows nothing of descriptors.
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
"""Minimum number of pairs that are processed together."""
_OPEN = 1 << 20
"""Maximum number of uncertain pairs in memory."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of query and reference, int64 [P], with lower and upper bounds of the cosine, float32 [P]; no NaN."""

    queries: Rows
    references: Rows
    lowest: Scores
    highest: Scores

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, which: NDArray[Any]) -> "Pairs":
        """The pairs that `which`, an index array or a mask, selects."""
        return Pairs(self.queries[which], self.references[which], self.lowest[which], self.highest[which])


class TopK:
    """The `kept` best pairs so far of each of `queries` queries; among equal ones, the lowest numbers.

    `exact` computes cosines that are uncertain: first for the pairs that are probably among the best, because their
    cosines rule out most of the others; at the end for the pairs that are left.
    """

    def __init__(self, queries: int, kept: int, exact: Exact | None = None) -> None:
        self.thresholds = np.full(queries, np.nan, np.float32)
        """By query, the cosine that `kept` references reach; NaN while there are fewer."""
        self._kept = kept
        self._exact = exact
        self._best = _joined([])
        """Sorted by query, the best first; all are certain."""
        self._open = list[Pairs]()
        self._added = list[Pairs]()

    def add(self, pairs: Pairs) -> None:
        """Take `pairs` into account. A pair below its query's threshold may be left out; if all are certain, so may a
        pair that equals the threshold and has a higher reference number than all before it.
        """
        self._added.append(pairs)
        # The first pairs are processed at once: their thresholds rule out others.
        if not len(self._best) or sum(map(len, self._added)) > max(_ADDED, 8 * self._kept * len(self.thresholds)):
            self._settle()

    def best(self) -> Pairs:
        """The best pairs of all that were added, sorted by query, the best first; their cosines are certain."""
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
        """Compute the uncertain cosines, the likeliest pairs first, because they rule out others."""
        left, looked_at = _joined(self._open), self._kept
        self._open.clear()
        while len(left := self._passing(left)):
            first = self._likeliest(left, looked_at)
            self._keep(self._certain(left.take(first)))
            left, looked_at = left.take(~first), 4 * looked_at

    def _passing(self, pairs: Pairs) -> Pairs:
        return pairs.take(~(pairs.highest < self.thresholds[pairs.queries]))

    def _likeliest(self, pairs: Pairs, count: int) -> NDArray[np.bool_]:
        """Mask of the `count` pairs of each query with the highest upper bounds."""
        order = np.lexsort((-pairs.highest, pairs.queries))
        mask = np.empty(len(pairs), np.bool_)
        mask[order] = _ranks(pairs.queries[order]) < count
        return mask

    def _certain(self, pairs: Pairs) -> Pairs:
        """The same pairs with exact cosines."""
        unknown = np.flatnonzero(pairs.lowest < pairs.highest)
        if self._exact is None or not len(unknown):
            return pairs
        cosines = pairs.lowest.copy()
        cosines[unknown] = self._exact(pairs.queries[unknown], pairs.references[unknown])
        return Pairs(pairs.queries, pairs.references, cosines, cosines)

    def _keep(self, pairs: Pairs) -> None:
        """Merge `pairs`, which are certain, into the best."""
        rivals = _joined([self._best, pairs])
        rivals = rivals.take(np.lexsort((rivals.references, -rivals.lowest, rivals.queries)))
        ranks = _ranks(rivals.queries)
        last = rivals.take(ranks == self._kept - 1)
        self.thresholds[last.queries] = last.lowest
        self._best = rivals.take(ranks < self._kept)


def _ranks(queries: Rows) -> Rows:
    """The position of each pair within its query, 0, 1, ...; the pairs are sorted by query."""
    first = np.ones(len(queries), np.bool_)
    first[1:] = queries[1:] != queries[:-1]
    places = np.arange(len(queries))
    return places - np.maximum.accumulate(np.where(first, places, 0))


def _joined(parts: Sequence[Pairs]) -> Pairs:
    """Concatenate."""

    def one(name: str, dtype: type[np.int64] | type[np.float32]) -> NDArray[Any]:
        return np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])

    return Pairs(
        one("queries", np.int64), one("references", np.int64), one("lowest", np.float32), one("highest", np.float32)
    )
