"""Worker processes with one thread each, which end with their parent and leave Ctrl-C to it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import TypeVar

from geodtr.runtime.errors import ConfigError, UserError

J = TypeVar("J")
R = TypeVar("R")

_STOPS = list[Event]()
"""In a worker, one: when it is set, no job starts any more."""
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run_jobs(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Generator[R, None, None]:
    """Yield function(job) for each job in order, computed in `workers` processes; with one worker, in this process.

    Processes are spawned, so that no lock or thread is copied; `function` and the jobs must be picklable. If the caller
    stops early or an error is raised, started jobs finish and no other starts, so that nothing is written afterwards.
    Raises UserError when a process is killed.
    """
    if workers == 1:
        yield from map(function, jobs)
        return
    processes = multiprocessing.get_context("spawn")
    stopped = processes.Event()  # a job that is queued for a worker can no longer be cancelled
    executor = ProcessPoolExecutor(workers, processes, _begin, (stopped,))
    try:
        with _inherited_by_workers():
            futures = [executor.submit(_run, function, job) for job in jobs]
        for future in futures:
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            f"One of {workers} worker processes ended abruptly, probably for lack of memory. Use fewer workers. "
            'In a script, start the work under `if __name__ == "__main__":`.'
        ) from None
    finally:
        stopped.set()
        executor.shutdown(cancel_futures=True)


def checked_workers(workers: int | None) -> int:
    """The number of processes, one per core where it is None. Raises ConfigError when it is below 1."""
    if workers is None:
        return os.cpu_count() or 1
    if workers < 1:
        raise ConfigError(f"workers is {workers}; allowed are whole numbers from 1.")
    return workers


@contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """Limit workers that start here to one thread, and block Ctrl-C in them.

    Workers inherit both from their parent. An initializer would be too late: NumPy's BLAS reads the thread count at
    import, and Ctrl-C during the imports prints a traceback. Ctrl-C in the meantime reaches the parent afterwards.
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


def _begin(stopped: Event) -> None:
    """Start a worker. It exits when the parent is killed; otherwise it waits for work forever."""
    _STOPS.append(stopped)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _run(function: Callable[[J], R], job: J) -> R:
    if any(stop.is_set() for stop in _STOPS):
        raise CancelledError
    return function(job)


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
