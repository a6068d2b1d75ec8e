"""Items taken ahead of the caller, in threads: from a source that may keep it waiting, or with work done on each.

Threads serve where the work is Pillow's, NumPy's or the disk's, which all let the others run.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Generic, TypeVar

from geodtr.runtime.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

_LONGEST = 1 << 20  # bytes of a line


@dataclass(frozen=True, slots=True)
class _End:
    """Why there are no more items: they are over, or taking the next one failed."""

    error: BaseException | None


class BackgroundReader(Generic[T]):
    """Items that a thread of its own takes from `items`, which may keep it waiting; for one thread to read.

    What taking them raises is raised to the reader, in its turn. Nothing bounds how many wait to be read but `items`.
    """

    def __init__(self, items: Iterable[T], name: str) -> None:
        """`name`: the thread's."""
        self._queue: SimpleQueue[T | _End] = SimpleQueue()
        self.over = False
        self._thread = Thread(target=self._take, args=(items,), name=name, daemon=True)
        self._thread.start()

    def next(self, seconds: float | None = None) -> T | None:
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

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended, so long at most; the caller has made `items` end."""
        self._thread.join(seconds)

    def _opened(self, item: T | _End) -> T | None:
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


def arriving_lines(file: int, name: str) -> Iterator[str]:
    """The lines of a file descriptor in UTF-8, each as soon as it is there; a byte-order mark is dropped. Raises
    DataError when one has no end, or the file cannot be read.

    Not by Python's own files: a thread that waits in one keeps the process from ending.
    """
    begun, encoding = b"", "utf-8-sig"
    while block := _read(file, name):
        *lines, begun = (begun + block).split(b"\n")
        for line in lines:
            yield line.decode(encoding)
            encoding = "utf-8"  # the mark stands before the first line alone
        if len(begun) > _LONGEST:
            raise DataError(f"{name} has a line of more than {_LONGEST:,} bytes: it is not a CSV.")
    if begun:
        yield begun.decode(encoding)


def _read(file: int, name: str) -> bytes:
    try:
        return os.read(file, 1 << 16)
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from None


def work_ahead(
    function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None, ahead: int
) -> Generator[tuple[T, Future[R]], None, None]:
    """Each item, in order, with its finished function(item); at most `ahead` items are begun or wait to be taken.

    A thread of its own takes the items, so that a slow source of them (a camera, a video) is read while the caller is
    busy, and a result does not wait for the items behind it. What that source raises is raised here, in its turn.
    Where the caller stops early, what has begun is waited for and the rest dropped, so that nothing is still written
    afterwards. `threads` is Python's own choice where None.
    """
    free, stopped = Semaphore(ahead), Event()

    def begin() -> Iterator[tuple[T, Future[R]]]:
        remaining = iter(items)
        while free.acquire() and not stopped.is_set():
            try:
                item = next(remaining)
            except StopIteration:
                return
            yield item, pool.submit(function, item)

    with ThreadPoolExecutor(threads) as pool:
        begun = BackgroundReader(begin(), "work_ahead")
        try:
            while (one := begun.next()) is not None:
                free.release()
                one[1].exception()  # waits, for less than half of what futures.wait costs
                yield one
        finally:
            stopped.set()
            free.release()
            pool.shutdown(cancel_futures=True)
            begun.join()
