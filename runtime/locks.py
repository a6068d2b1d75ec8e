"""Locks between processes that go with the process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Lock = Literal["ours", "another's", "none"]
"""`none`: the file system knows no locks, so that nobody can be told apart."""


@contextmanager
def locked(path: Path) -> Iterator[Lock]:
    """Hold the file or folder `path` against other processes while the context lasts, if none of them holds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> Lock:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another's"
    except OSError:
        return "none"
    return "ours"
