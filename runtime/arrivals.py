"""What arrives from outside while something else is waited for: lines of a pipe, rows of odometry."""

import os
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from geodtr.runtime.errors import DataError

T = TypeVar("T")

_LONGEST = 1 << 20  # bytes of a line


def arriving_lines(file: int, name: str) -> Iterator[str]:
    """The lines of a file descriptor in UTF-8, each as soon as it is there; a byte-order mark is dropped. Raises
    DataError when one has no end.

    Not by Python's own files: a thread that waits in one keeps the process from ending.
    """
    begun, encoding = b"", "utf-8-sig"
    while block := os.read(file, 1 << 16):
        *lines, begun = (begun + block).split(b"\n")
        for line in lines:
            yield line.decode(encoding)
            encoding = "utf-8"  # the mark stands before the first line alone
        if len(begun) > _LONGEST:
            raise DataError(f"{name} has a line of more than {_LONGEST:,} bytes: it is not a CSV.")
    if begun:
        yield begun.decode(encoding)


class Arrivals(Generic[T]):
    """Items that a thread of its own takes from a source that may keep it waiting; to be had by one thread.

    What taking them raises is raised to whoever asks, in its turn.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._queue: SimpleQueue[T | _End] = SimpleQueue()
        self.over = False
        Thread(target=self._take, args=(items,), name="arrivals", daemon=True).start()

    def next(self, seconds: float | None) -> T | None:
        """The next item, waited for so long, without end where `seconds` is None; None where there are no more.

        Raises TimeoutError when none has come.
        """
        if self.over:
            return None
        try:
            return self._opened(self._queue.get(timeout=seconds))
        except Empty:
            raise TimeoutError from None

    def come(self) -> list[T]:
        """All that have come and were not taken yet, without waiting."""
        items = list[T]()
        while not self.over:
            try:
                item = self._opened(self._queue.get_nowait())
            except Empty:
                break
            if item is not None:
                items.append(item)
        return items

    def _opened(self, item: "T | _End") -> T | None:
        if not isinstance(item, _End):
            return item
        self.over = True
        if item.error is not None:
            raise item.error
        return None

    def _take(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._queue.put(item)
        except BaseException as error:  # whatever it is, it is the caller's, in whose thread it is raised again
            self._queue.put(_End(error))
        else:
            self._queue.put(_End(None))


class _End:
    """Why there are no more items: they are over, or taking the next one failed."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
