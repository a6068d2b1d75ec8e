"""A scan over many references in blocks, by several threads.

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

from geodtr.runtime.search.topk import Exact, Pairs, Rows, Scores, TopK

Number = TypeVar("Number", bound=np.generic)

_SHARED_PAIRS = 64
"""Pairs that are worth a thread."""
_WAITING = 4


@dataclass(frozen=True, slots=True)
class Block:
    """Some references: all in `rows`, or only those at the positions `picked` within `rows`."""

    rows: slice | Rows
    picked: Rows | None = None

    def of(self, scored: NDArray[Number]) -> NDArray[Number]:
        """The entries of `scored` [rows, ...] that belong to the block's references."""
        return scored if self.picked is None else scored[self.picked]

    def numbers(self, places: Rows) -> Rows:
        """The row numbers of the references at `places` within the block."""
        places = places if self.picked is None else self.picked[places]
        return places + self.rows.start if isinstance(self.rows, slice) else self.rows[places]


BlockScorer = Callable[[Block, Scores], Pairs]
"""Scores a block and returns the pairs of query and reference that pass the query's threshold [Q]."""


def blocks(count: int, among: Rows | None, first: int, largest: int, threads: int) -> Iterator[Block]:
    """Blocks of all `count` references, or of the rows `among` them, in rising order.

    Each thread's first block has `first` references, the next four times as many, up to `largest`: the first few give
    thresholds that save work later. Blocks shrink towards the end, so that all threads end together. Rows that are
    close together are read as one slice, which is faster than gathering the wanted ones.
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
    whole = slice(int(rows[0]), int(rows[-1]) + 1)
    span = whole.stop - whole.start
    if span == len(rows):
        return Block(whole)
    return Block(whole, rows - whole.start) if span <= 2 * len(rows) else Block(rows)


def scan(
    score_block: BlockScorer, of: Iterator[Block], queries: int, kept: int, exact: Exact | None, threads: int
) -> Pairs:
    """The `kept` best pairs of each query in all blocks, by query, the best first.

    Each thread, the caller's included, scores the next block when it is free, so that a core with other work delays no
    thread. Each block's pairs raise the thresholds of later blocks.
    """
    # Exact cosines have their own pool: in this one they could deadlock with the scorers that wait for them.
    top = TopK(queries, kept, None if exact is None else _shared(exact, threads))
    queue = _Queue(of, top.add)

    def work() -> None:
        with _no_float_warnings(), queue.stopped_by_errors():
            for number, block in queue:
                queue.add_in_order(number, score_block(block, top.thresholds))

    others = list[Future[None]]()
    try:
        with suppress(RuntimeError):  # raised while the interpreter shuts down: the calling thread does all the work
            for _ in range(threads - 1):
                others.append(_pool("scan").submit(work))
        work()
    finally:
        # A task that has not begun, because other searches keep the pool busy, is no longer needed.
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()
    with _no_float_warnings():
        return top.best()


@cache
def _pool(purpose: str) -> ThreadPoolExecutor:
    """Threads that outlive a search, at most one per core, started on demand, because a start takes a millisecond."""
    return ThreadPoolExecutor(os.cpu_count() or 1, f"geodtr-{purpose}")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


class _Queue:
    """Blocks for the threads to take, and their pairs, which one thread at a time adds in the blocks' order.

    If more than _WAITING blocks' pairs are pending, threads wait for the adding thread, which bounds the memory.
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

    def add_in_order(self, number: int, pairs: Pairs) -> None:
        """Add the pairs of block `number` after those before it, in this thread or another."""
        self._brought[number] = pairs
        # Checked again after each release: another thread may have left its pairs to this one.
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
        """After an error inside, or Ctrl-C, no thread takes another block."""
        try:
            yield
        except BaseException:
            with self._taking:
                self._left = enumerate(iter(()))
            raise


def _no_float_warnings() -> np.errstate:
    """Silence NumPy: damaged rows give infinities and NaN, which the scan handles. Each thread needs its own."""
    return np.errstate(over="ignore", invalid="ignore")


def _shared(exact: Exact, threads: int) -> Exact:
    """`exact`, with many pairs divided among the threads."""

    def shared(queries: Rows, references: Rows) -> Scores:
        if threads == 1 or len(queries) < _SHARED_PAIRS:
            return exact(queries, references)
        parts = [np.array_split(pairs, threads) for pairs in (queries, references)]
        try:
            return np.concatenate(list(_pool("exact").map(exact, *parts)))
        except RuntimeError:  # the interpreter shuts down
            return exact(queries, references)

    return shared
