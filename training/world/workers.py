"""Work spread over processes that cost one thread each, die with their parent, and leave Ctrl-C to it.

Knows processes; knows nothing of the work.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from geodtr.runtime.errors import UserError

J = TypeVar("J")
R = TypeVar("R")

_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run_jobs(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Generator[R, None, None]:
    """Yield function(job) of each job in order, computed in `workers` processes; with one worker, in this process.

    Processes are spawned, so that no lock or thread of this one is copied: `function` and the jobs must be picklable.
    When the caller stops early or an error is raised, jobs that have begun are waited for and the others dropped, so
    that nothing is still written afterwards. Raises UserError when a process is killed.
    """
    if workers == 1:
        yield from map(function, jobs)
        return
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _die_with_parent)
    try:
        with _inherited_by_workers():
            futures = [executor.submit(function, job) for job in jobs]
        for future in futures:
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            f"One of {workers} worker processes ended abruptly, most likely for lack of memory: repeat with fewer. "
            'A script of your own must start the work under `if __name__ == "__main__":`.'
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """What a process takes over from its parent at its start: one thread for arithmetic, and no ear for Ctrl-C.

    Both must hold before the process runs any Python, and so not in its initializer: NumPy's BLAS counts threads when
    it is imported, and a Ctrl-C during the imports prints a traceback. One that comes meanwhile reaches the parent
    afterwards.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(_THREADS)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _die_with_parent() -> None:
    """A killed parent cannot stop its workers, which would then wait for work forever."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
