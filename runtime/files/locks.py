"""Locks on files and folders, which end with their process.

Knows nothing of what is locked.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Lock = Literal["ours", "another's", "none"]
"""`none`: the file system has no locks, so another process cannot be detected."""


@contextmanager
def locked(path: Path) -> Iterator[Lock]:
    """Hold the file or folder `path` against other processes while the context lasts, if none of them holds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield lock_file(descriptor)
    finally:
        os.close(descriptor)


def lock_file(descriptor: int, *, shared: bool = False) -> Lock:
    """Hold an open file or folder against other processes until it is closed, if none of them holds it; `shared` with
    others that share it.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another's"
    except OSError:
        return "none"
    return "ours"
