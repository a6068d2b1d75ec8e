"""Work on many items at once, in threads, a bounded number of them ahead of whoever takes the results.

Threads serve where the work is Pillow's, NumPy's or the disk's, which all let the others run.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Begun(Generic[T, R]):
    item: T
    future: Future[R]


@dataclass(frozen=True, slots=True)
class _End:
    """Why there are no more items: they are over, or taking the next one failed."""

    error: BaseException | None


def work_ahead(
    function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None, ahead: int
) -> Generator[tuple[T, Future[R]], None, None]:
    """Each item, in order, with its finished function(item); at most `ahead` items are begun or wait to be taken.

    A thread of its own takes the items, so that a slow source of them (a camera, a video) is read while the caller is
    busy, and a result does not wait for the items behind it. What that source raises is raised here, in its turn.
    Where the caller stops early, what has begun is waited for and the rest dropped, so that nothing is still written
    afterwards. `threads` is Python's own choice where None.
    """
    begun: SimpleQueue[_Begun[T, R] | _End] = SimpleQueue()
    free, stopped = Semaphore(ahead), Event()

    def begin() -> None:
        try:
            remaining = iter(items)
            while free.acquire() and not stopped.is_set():
                item = next(remaining)
                begun.put(_Begun(item, pool.submit(function, item)))
        except StopIteration:
            begun.put(_End(None))
        except BaseException as error:  # whatever it is, it is the caller's, in whose thread it is raised again
            begun.put(_End(error))

    with ThreadPoolExecutor(threads) as pool:
        beginning = Thread(target=begin, name="work_ahead", daemon=True)
        beginning.start()
        try:
            while True:
                next_one = begun.get()
                if isinstance(next_one, _End):
                    if next_one.error is not None:
                        raise next_one.error
                    return
                free.release()
                next_one.future.exception()  # waits, for less than half of what futures.wait costs
                yield next_one.item, next_one.future
        finally:
            stopped.set()
            free.release()
            pool.shutdown(cancel_futures=True)
            beginning.join()
