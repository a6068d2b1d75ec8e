"""Going once over many references in blocks, by several threads, each of which keeps the best of what it has seen.

Knows row numbers; knows nothing of how a block is scored.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.shortlist import Exact, Pairs, Rows, Scores, Shortlist

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Block:
    """Some references: those in `rows`, and of these the ones at the places `picked`, where not all are meant.

    `numbers` int64 [M]: their rows, rising.
    """

    rows: slice | Rows
    picked: Rows | None
    numbers: Rows

    def of(self, scored: NDArray[Number]) -> NDArray[Number]:
        """What belongs to the references that are meant, of [rows, ...]."""
        return scored if self.picked is None else scored[self.picked]


Sift = Callable[[Block, Scores], Pairs]
"""Scores a block, and gives the pairs of a query and a reference that their query's threshold [Q] lets through."""


def blocks(count: int, among: Rows | None, first: int, largest: int) -> Iterator[Block]:
    """All of `count` references, or those `among` them, in rising order.

    The blocks grow from `first` references to `largest`: the first few give thresholds that spare the others' work.
    Rows that lie close together are read as they lie, which is faster than gathering those that are meant.
    """
    size, start = min(first, largest), 0
    total = count if among is None else len(among)
    while start < total:
        stop = min(start + size, total)
        if among is None:
            yield Block(slice(start, stop), None, np.arange(start, stop))
        else:
            numbers = among[start:stop]
            rows = slice(int(numbers[0]), int(numbers[-1]) + 1)
            span = rows.stop - rows.start
            if span == len(numbers):
                yield Block(rows, None, numbers)
            elif span <= 2 * len(numbers):
                yield Block(rows, numbers - rows.start, numbers)
            else:
                yield Block(numbers, None, numbers)
        start, size = stop, min(2 * size, largest)


def sweep(sift: Sift, of: Iterator[Block], queries: int, kept: int, exact: Exact | None, threads: int) -> Pairs:
    """The `kept` best pairs of each query in all blocks, by query, the best first.

    Each thread takes the next block when it is free, so that a core that is busy otherwise holds nobody up.
    """
    lock = Lock()

    def next_block() -> Block | None:
        with lock:
            return next(of, None)

    def work() -> Pairs:
        found = Shortlist(queries, kept, exact)
        with _whatever_comes():
            while (block := next_block()) is not None:
                found.add(sift(block, found.thresholds))
            return found.rivals()

    if threads == 1:
        return _best([work()], queries, kept, exact)
    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work) for _ in range(threads)]
        parts = [each.result() for each in working]
        return _best(parts, queries, kept, None if exact is None else _shared(exact, pool, threads))


def _best(parts: Sequence[Pairs], queries: int, kept: int, exact: Exact | None) -> Pairs:
    together = Shortlist(queries, kept, exact)
    with _whatever_comes():
        for part in parts:
            together.add(part)
        return together.best()


def _whatever_comes() -> np.errstate:
    """No warnings: damaged rows give infinities and NaN, which are dealt with. Each thread needs its own."""
    return np.errstate(over="ignore", invalid="ignore")


def _shared(exact: Exact, pool: ThreadPoolExecutor, threads: int) -> Exact:
    """The same, the pairs being divided among the threads of the pool."""

    def shared(queries: Rows, references: Rows) -> Scores:
        parts = [np.array_split(pairs, threads) for pairs in (queries, references)]
        return np.concatenate(list(pool.map(exact, *parts)))

    return shared
