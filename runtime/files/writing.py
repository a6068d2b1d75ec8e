"""Durable or absent: files and folders are written beside their place, synced, and renamed.

Knows paths and bytes; knows nothing of what they hold.
"""

import ctypes
import errno
import glob
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from geodtr.runtime.errors import OutputExists, UserError
from geodtr.runtime.files.locks import lock_file, locked
from geodtr.runtime.files.places import check_new_folder, explained, taken
from geodtr.runtime.files.reading import open_regular, real_path

_KEPT = 28  # characters of a name, and of its ending, that a temporary one shares: with all it could become too long

_HERE, _NO_REPLACE = -100, 1
"""Linux's AT_FDCWD and RENAME_NOREPLACE."""


@contextmanager
def new_file(path: Path, *, replace: bool = True, private: bool = False) -> Iterator[Path]:
    """A temporary path to write; on a clean exit it is synced and takes `path`'s place, otherwise nothing is left.

    An existing file is replaced in one step, so that a reader sees the old one or the new one, never a part; without
    `replace` it stays, even where it came while this one was written. What a killed process left of the same file is
    taken over. A `private` file can be read by its owner only, from the start.
    Raises UserError when the place cannot be written, OutputExists for a file that stays.
    """
    path = real_path(path)
    with explained(path), ExitStack() as closes:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_file(path, closes, private)
        try:
            yield temporary
            if not private:
                temporary.chmod(0o666 & ~_umask())
            sync(temporary)
            if replace:
                temporary.replace(path)
            else:
                _rename_to_new(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def new_pair(first: Path, second: Path, *, private: bool = False) -> Iterator[tuple[Path, Path]]:
    """Two new files that belong together, as `new_file` makes one without `replace`: both are there in the end, or
    neither. A signal that the process has a handler for waits until both have their places. A kill or a power cut in
    the instant between leaves `second` alone: no file system renames two files in one step. `private` is the first.
    """
    placed = False
    try:
        with signals_held() as hold, new_file(first, replace=False, private=private) as one:
            with new_file(second, replace=False) as other:
                yield one, other
                hold()
                # What the disk refuses, it refuses before either has its place.
                sync(one)
                sync(other)
            placed = True
    except OutputExists:
        if placed:
            second.unlink(missing_ok=True)
        raise


@contextmanager
def signals_held() -> Iterator[Callable[[], None]]:
    """From the call of the function that it yields, signals wait for the end of the context. Only Python's main thread
    can have it so.
    """
    before: dict[int, Any] = {}
    came = list[int]()

    def hold() -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda number, _: came.append(number))

    try:
        yield hold
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill; on a clean exit it is synced and renamed to `path`, otherwise nothing is left. What a
    killed process left of the same folder is cleared away.

    Raises OutputExists when `path` holds anything (an empty folder is taken over), UserError when it cannot be written.
    """
    check_new_folder(path)
    path = real_path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = f".{path.name[:_KEPT]}.unfinished-"
        _remove_abandoned(path.parent, unfinished)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=unfinished))
        try:
            with locked(temporary):
                yield temporary
                temporary.chmod(0o777 & ~_umask())
                for entry in sorted(temporary.rglob("*")):
                    sync(entry)
                sync(temporary)
                check_new_folder(path)
                temporary.replace(path)
                sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_in(folder: Path) -> Iterator[Path]:
    """A temporary folder inside a folder from `new_folder`.

    It is removed together with that folder even if the process is killed, and it uses the disk that the user named.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-") as scratch:
        yield Path(scratch)


def write_bytes(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write `data` durably: after the call it is on disk whole, or `path` is as it was. `replace` as `new_file`."""
    with new_file(path, replace=replace) as temporary:
        temporary.write_bytes(data)


def make_folder(path: Path) -> None:
    """Make the folder `path` unless it is there. Raises UserError when it cannot be made."""
    path = real_path(path)
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


def write_link(path: Path, target: Path) -> None:
    """Make `path` a symbolic link to `target`, durably and in one step, where nothing or another link is. Raises
    UserError when it cannot be made.
    """
    path = real_path(path.parent) / path.name
    with explained(path):
        unfinished = path.with_name(f".{path.name[:_KEPT]}.unfinished")
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(target)
        unfinished.replace(path)
        sync(path.parent)


def _rename_to_new(file: Path, path: Path) -> None:
    """Rename in one step that replaces nothing. Raises OutputExists.

    Some file systems (NFS, some FUSE) know no such step: there, what comes between the look and the rename is lost.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_HERE, os.fsencode(file), _HERE, os.fsencode(path), _NO_REPLACE) == 0:
            return
        error = ctypes.get_errno()
        if error == errno.EEXIST:
            raise taken(path)
        if error not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(error, os.strerror(error), str(path))
    if os.path.lexists(path):
        raise taken(path)
    file.replace(path)


def _temporary_file(path: Path, closes: ExitStack, private: bool) -> Path:
    """An empty file beside `path`, held until `closes` is closed.

    Its name is always the same, so that the next process finds what a killed one left without looking through the
    folder. Where another process holds that, or something else is there, the name is a random one. So is a private
    file's: others could have made the usual one, or opened it.
    """
    begin, end = f".{path.name[:_KEPT]}.unfinished", path.suffix[:_KEPT]
    temporary = path.with_name(begin + end)
    if not private:
        with suppress(OSError, UserError):
            descriptor = open_regular(temporary, os.O_RDWR | os.O_CREAT, UserError)
            closes.callback(os.close, descriptor)
            # Else it is another's, or was until now and has become the file that it was made for.
            if lock_file(descriptor) == "ours" and os.path.samestat(os.fstat(descriptor), temporary.lstat()):
                os.ftruncate(descriptor, 0)
                return temporary
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{begin}-", suffix=end)
    os.close(handle)
    return Path(name)


def _remove_abandoned(parent: Path, unfinished: str) -> None:
    """Remove the folders that were begun under such a name and that no living process holds."""
    for folder in parent.glob(f"{glob.escape(unfinished)}*"):
        with suppress(FileNotFoundError), locked(folder) as lock:  # another may clear it away meanwhile
            if lock == "ours":
                shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Put what was written to the file or folder `path` on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
