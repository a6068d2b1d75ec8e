"""Work on many items at once, in threads, a bounded number of them ahead of whoever takes the results.

Threads serve where the work is Pillow's, NumPy's or the disk's, which all let the others run.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def work_ahead(
    function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None, ahead: int
) -> Generator[tuple[T, Future[R]], None, None]:
    """Each item, in order, with its finished function(item); at most `ahead` items are begun or wait to be taken.

    Where the caller stops early, what has begun is waited for and the rest dropped, so that nothing is still written
    afterwards. `threads` is Python's own choice where None.
    """
    with ThreadPoolExecutor(threads) as pool:
        queue: deque[tuple[T, Future[R]]] = deque()
        remaining = iter(items)
        try:
            while True:
                queue.extend((item, pool.submit(function, item)) for item in islice(remaining, ahead - len(queue)))
                if not queue:
                    return
                item, future = queue.popleft()
                wait([future])
                yield item, future
        finally:
            pool.shutdown(cancel_futures=True)
