"""Prefetch items in threads: from a slow source, or with work done on each.

Threads suffice because Pillow, NumPy and file reads release Python's interpreter lock.
"""

import atexit
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Condition, Event, Semaphore, Thread
from typing import Generic, TypeVar

from geodtr.runtime.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

_LONGEST = 1 << 20  # bytes of a line
_ROOM = 256 << 20
"""Bytes of items that wait to be worked on: ten frames of a 4K video."""


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the items, or the error of taking the next one."""

    error: BaseException | None


class BackgroundReader(Generic[T]):
    """A thread that reads `items`, which may block; one other thread takes them.

    An error of `items` is raised in the taking thread, after the items before it. The queue has no bound.
    """

    def __init__(self, items: Iterable[T], name: str, stop: Callable[[], object] | None = None) -> None:
        """`name`: the name of the thread. `stop` ends `items`; it is called when the process ends, if `end` was not.

        Without that the process aborts where the thread is in C++, as OpenCV's, and returns to an interpreter that is
        gone.
        """
        self._queue: SimpleQueue[T | _End] = SimpleQueue()
        self.over = False
        self._stop = stop
        self._thread = Thread(target=self._take, args=(items,), name=name, daemon=True)
        self._thread.start()
        if stop is not None:
            atexit.register(self.end)

    def next(self, seconds: float | None = None) -> T | None:
        """Wait for the next item, at most `seconds`, without limit if that is None; None if there are no more.

        Raises TimeoutError when none arrives in time.
        """
        if self.over:
            return None
        try:
            return self._opened(self._queue.get(timeout=seconds))
        except Empty:
            raise TimeoutError from None

    def come(self) -> list[T]:
        """All items that have arrived and were not taken yet, without waiting."""
        items = list[T]()
        while not self.over:
            try:
                item = self._opened(self._queue.get_nowait())
            except Empty:
                break
            if item is not None:
                items.append(item)
        return items

    def end(self, seconds: float | None = 1.0) -> None:
        """End `items`, and wait until the thread has ended, at most `seconds`."""
        atexit.unregister(self.end)
        if self._stop is not None:
            self._stop()
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
        except BaseException as error:  # raised again in the caller's thread
            self._queue.put(_End(error))
        else:
            self._queue.put(_End(None))


def arriving_lines(file: int, name: str) -> Iterator[str]:
    """The lines of a file descriptor in UTF-8, each as soon as it arrives; a byte-order mark is dropped.

    Raises DataError when a line is too long, or the file cannot be read. Does not use Python's file objects: a thread
    that waits in one keeps the process from ending.
    """
    begun, encoding = b"", "utf-8-sig"
    while block := _read(file, name):
        *lines, begun = (begun + block).split(b"\n")
        for line in lines:
            yield line.decode(encoding)
            encoding = "utf-8"  # only the first line may have a mark
        if len(begun) > _LONGEST:
            raise DataError(f"{name} has a line of more than {_LONGEST:,} bytes: it is not a CSV.")
    if begun:
        yield begun.decode(encoding)


def _read(file: int, name: str) -> bytes:
    try:
        return os.read(file, 1 << 16)
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror}).") from None


@dataclass(frozen=True, slots=True)
class Bulk(Generic[T]):
    """The memory that items hold: `size` in bytes, and `shed`, the same item without it."""

    size: Callable[[T], int]
    shed: Callable[[T], T]


class _Room:
    """Bytes that items may hold together. A larger one is let in alone."""

    def __init__(self) -> None:
        self._held, self._stopped, self._changed = 0, False, Condition()

    def take(self, size: int) -> None:
        """Wait until there is room, or until `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._held or self._held + size <= _ROOM)
            self._held += size

    def give(self, size: int, _done: object) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()


def work_ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int | None = None,
    ahead: int,
    bulk: Bulk[T] | None = None,
) -> Generator[tuple[T, Future[R]], None, None]:
    """Each item, in order, with the finished future of function(item).

    At most `ahead` items are running or waiting to be taken. A separate thread reads the items, so that a slow source
    (a camera, a video) is read while the caller is busy, and a result does not wait for later items. An error of the
    source is raised here, after the items before it. If the caller stops early, running calls finish and the rest are
    dropped, so that nothing is written afterwards. `threads` None: Python's default number. With `bulk`, items come
    back without their memory, and those that wait for `function` hold at most _ROOM bytes.
    """
    free, stopped, room = Semaphore(ahead), Event(), _Room()

    def begin() -> Iterator[tuple[T, Future[R]]]:
        remaining = iter(items)
        while free.acquire() and not stopped.is_set():
            try:
                item = next(remaining)
            except StopIteration:
                return
            if bulk is None:
                yield item, pool.submit(function, item)
                continue
            size = bulk.size(item)
            room.take(size)
            future = pool.submit(function, item)
            future.add_done_callback(partial(room.give, size))
            item = bulk.shed(item)
            yield item, future

    def stop() -> None:
        stopped.set()
        free.release()
        room.stop()

    with ThreadPoolExecutor(threads) as pool:
        begun = BackgroundReader(begin(), "work_ahead", stop)
        try:
            while (one := begun.next()) is not None:
                free.release()
                one[1].exception()  # waits, for less than half of what futures.wait costs
                yield one
        finally:
            stop()
            pool.shutdown(cancel_futures=True)
            begun.end(None)
