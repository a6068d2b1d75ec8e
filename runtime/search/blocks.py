"""Going once over many references in blocks, by several threads.

Knows row numbers; knows nothing of how a block is scored.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.search.topk import Exact, Pairs, Rows, Scores, Shortlist

Number = TypeVar("Number", bound=np.generic)

_SHARED_PAIRS = 64
"""So many pairs are worth a thread."""
_WAITING = 4


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

    Threads, the caller's among them, sift the next block when they are free, so that a core that is busy otherwise
    holds nobody up; what comes of it raises the thresholds of those that follow.
    """
    # Exact cosines are asked for on the way: in the same pool they could wait for those who wait for them.
    found = Shortlist(queries, kept, None if exact is None else _shared(exact, threads))
    queue = _Queue(of, found.add)

    def work() -> None:
        with _whatever_comes(), queue.stopped_by_errors():
            for number, block in queue:
                queue.bring(number, sift(block, found.thresholds))

    others = list[Future[None]]()
    try:
        with suppress(RuntimeError):  # of an interpreter that is about to end: no thread begins anything any more
            for _ in range(threads - 1):
                others.append(_pool("sift").submit(work))
        work()
    finally:
        # One that has not begun, for other searches keep the pool busy, is not needed any more.
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()
    with _whatever_comes():
        return found.best()


@cache
def _pool(purpose: str) -> ThreadPoolExecutor:
    """Threads that outlive a search, a core at most, begun when they are needed: to start them takes a millisecond."""
    return ThreadPoolExecutor(os.cpu_count() or 1, f"geodtr-{purpose}")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


class _Queue:
    """Blocks that threads take from, and what comes of them, added in the blocks' order by one thread at a time.

    Whoever adds is waited for when more than _WAITING blocks wait for it: their pairs would fill the memory.
    """

    def __init__(self, of: Iterator[Block], add: Callable[[Pairs], None]) -> None:
        self._left = enumerate(of)
        self._add = add
        self._taking, self._adding = Lock(), Lock()
        self._brought = dict[int, Pairs]()
        self._next = 0

    def __iter__(self) -> Iterator[tuple[int, Block]]:
        while True:
            with self._taking:
                taken = next(self._left, None)
            if taken is None:
                return
            yield taken

    def bring(self, number: int, pairs: Pairs) -> None:
        """Hand in what came of a block."""
        self._brought[number] = pairs
        # Asked again after each release: what another brought meanwhile, it left to this thread.
        while self._next in self._brought and self._adding.acquire(blocking=len(self._brought) > _WAITING):
            try:
                while self._next in self._brought:
                    pairs = self._brought.pop(self._next)
                    self._next += 1
                    self._add(pairs)
            finally:
                self._adding.release()

    @contextmanager
    def stopped_by_errors(self) -> Iterator[None]:
        """An error inside, or Ctrl-C, leaves nothing to take for anybody."""
        try:
            yield
        except BaseException:
            with self._taking:
                self._left = enumerate(iter(()))
            raise


def _whatever_comes() -> np.errstate:
    """No warnings: damaged rows give infinities and NaN, which are dealt with. Each thread needs its own."""
    return np.errstate(over="ignore", invalid="ignore")


def _shared(exact: Exact, threads: int) -> Exact:
    """The same, many pairs being divided among so many threads."""

    def shared(queries: Rows, references: Rows) -> Scores:
        if threads == 1 or len(queries) < _SHARED_PAIRS:
            return exact(queries, references)
        parts = [np.array_split(pairs, threads) for pairs in (queries, references)]
        try:
            return np.concatenate(list(_pool("exact").map(exact, *parts)))
        except RuntimeError:  # as when sifting
            return exact(queries, references)

    return shared
