"""Going once over many references in blocks, by several threads.

Knows row numbers; knows nothing of how a block is scored.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.shortlist import Exact, Pairs, Rows, Scores, Shortlist

Number = TypeVar("Number", bound=np.generic)

_SHARED_PAIRS = 64
"""So many pairs are worth a thread."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some references: those in `rows`, and of these the ones at the places `picked`, where not all are meant."""

    rows: slice | Rows
    picked: Rows | None = None

    def of(self, scored: NDArray[Number]) -> NDArray[Number]:
        """What belongs to the references that are meant, of [rows, ...]."""
        return scored if self.picked is None else scored[self.picked]

    def numbers(self, places: Rows) -> Rows:
        """The rows of those at `places` among the references that are meant."""
        places = places if self.picked is None else self.picked[places]
        return places + self.rows.start if isinstance(self.rows, slice) else self.rows[places]


Sift = Callable[[Block, Scores], Pairs]
"""Scores a block, and gives the pairs of a query and a reference that their query's threshold [Q] lets through."""


def blocks(count: int, among: Rows | None, first: int, largest: int, threads: int) -> Iterator[Block]:
    """All of `count` references, or those `among` them, in rising order.

    Each thread's first has `first` references, its next four times as many, up to `largest`: the first few give
    thresholds that spare the others' work. Towards the end blocks shrink, so that all threads end together. Rows that
    lie close together are read as they lie, which is faster than gathering those that are meant.
    """
    total = count if among is None else len(among)
    least = max(first, total // (64 * threads))
    start, number = 0, 0
    while start < total:
        size = min(first * 4 ** (number // threads), largest, max(least, (total - start) // threads))
        part = slice(start, min(start + size, total))
        yield Block(part) if among is None else _block_of(among[part])
        start, number = part.stop, number + 1


def _block_of(rows: Rows) -> Block:
    lie = slice(int(rows[0]), int(rows[-1]) + 1)
    span = lie.stop - lie.start
    if span == len(rows):
        return Block(lie)
    return Block(lie, rows - lie.start) if span <= 2 * len(rows) else Block(rows)


def sweep(sift: Sift, of: Iterator[Block], queries: int, kept: int, exact: Exact | None, threads: int) -> Pairs:
    """The `kept` best pairs of each query in all blocks, by query, the best first.

    Threads sift, each the next block when it is free, so that a core that is busy otherwise holds nobody up; what comes
    of it is gone through here, in the blocks' order, and raises the thresholds of those that follow.
    """
    # All blocks wait in the one pool: exact cosines, which are asked for on the way, would wait behind them.
    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(threads) as helpers, _whatever_comes():
        found = Shortlist(queries, kept, None if exact is None else _shared(exact, helpers, threads))

        def sifted(block: Block) -> Pairs:
            with _whatever_comes():
                return sift(block, found.thresholds)

        for pairs in map(sifted, of) if threads == 1 else pool.map(sifted, of):
            found.add(pairs)
        return found.best()


def _whatever_comes() -> np.errstate:
    """No warnings: damaged rows give infinities and NaN, which are dealt with. Each thread needs its own."""
    return np.errstate(over="ignore", invalid="ignore")


def _shared(exact: Exact, pool: ThreadPoolExecutor, threads: int) -> Exact:
    """The same, many pairs being divided among the threads of the pool."""

    def shared(queries: Rows, references: Rows) -> Scores:
        if threads == 1 or len(queries) < _SHARED_PAIRS:
            return exact(queries, references)
        parts = [np.array_split(pairs, threads) for pairs in (queries, references)]
        return np.concatenate(list(pool.map(exact, *parts)))

    return shared
