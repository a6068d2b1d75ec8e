"""A gallery folder held by its one writer, and what the disk and its permissions refuse that writer."""

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.files import lock_file, open_regular
from geodtr.runtime.gallery.folder.opening import LOCK, LONGEST

_TRIES, _PAUSE = 10, 0.02
"""So often, and after so many seconds, is a lock tried again that a reader may hold for a moment (opening.py)."""
_LITTLE = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def lock(path: Path, closes: ExitStack) -> None:
    """Hold the writer's lock until `closes` is closed; the operating system releases it when the process ends."""
    file = open_regular(path / LOCK, os.O_RDWR | os.O_CREAT, GalleryError)
    closes.callback(os.close, file)
    held = lock_file(file)
    for _ in range(_TRIES):
        if held != "another's":
            break
        time.sleep(_PAUSE)
        held = lock_file(file)
    if held == "another's":
        holder = os.pread(file, 20, 0).decode(errors="replace") or "unknown"
        raise GalleryError(
            f"{path} is being written by another process (number {holder}). Wait until it is done, or stop it; it can "
            "be read meanwhile."
        )
    if held == "none":
        raise GalleryError(f"{path} is on a file system without locks, which cannot exclude a second writer. Move it.")
    with suppress(OSError):  # a full disk: the lock holds without the process number
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)


@contextmanager
def refusals(path: Path, folder: Path | None = None) -> Iterator[None]:
    """Convert errors of the disk or its permissions into a GalleryError; `folder`: where `path` is while it is made."""
    try:
        yield
    except FileNotFoundError as error:
        raise GalleryError(f"{error.filename} is missing. Copy the gallery again, or build it again.") from None
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _no_space(path) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _read_only(path) from None
        raise
    except sqlite3.DataError:
        raise GalleryError(
            f"{path} keeps {LONGEST:,} bytes of a tile at most: its id, its file and its JSON must be shorter."
        ) from None
    except sqlite3.OperationalError as error:
        # SQLite has several messages for a file that it cannot enlarge.
        if "full" in str(error) or shutil.disk_usage(folder or path).free < _LITTLE:
            raise _no_space(path) from None
        if "disk I/O" in str(error):  # a limit on file sizes, among other causes
            raise _no_space(path) from None
        if "readonly" in str(error) or not os.access(folder or path, os.W_OK):
            raise _read_only(path) from None
        raise


def _no_space(path: Path) -> GalleryError:
    return GalleryError(
        f"No space is left on the disk of {path}, or ulimit -f allows no larger file. All that was acknowledged is "
        "kept. Free some, and repeat the command: it goes on from there."
    )


def _read_only(path: Path) -> GalleryError:
    return GalleryError(f"{path} cannot be written: it is read-only for you. Copy it to a place that you may write to.")
