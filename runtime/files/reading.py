"""What is at a place, and the bytes of a file there: hashed, or opened so that nothing keeps its reader waiting.

Knows paths and bytes; knows nothing of what they hold.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from geodtr.runtime.errors import UserError


def real_path(path: Path) -> Path:
    """`path` whole and without symbolic links. Of a loop of links, where Path.resolve() fails, the rest stays."""
    return Path(os.path.realpath(path))


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """One hex SHA-256 over the contents of all files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()


@contextmanager
def readable(error_class: type[UserError], path: Path | None = None) -> Iterator[None]:
    """Turn what a disk or its permissions refuse, asked what is at a place, into an `error_class` naming that place:
    `path` where the system does not name it, as when an opened file is read.
    """
    try:
        yield
    except OSError as error:
        raise error_class(
            f"{error.filename or path or 'A file'} cannot be read ({error.strerror}). Check the path, and that you may "
            "look there."
        ) from None


def check_file(path: Path, error_class: type[UserError], remedy: str = "Check the path.") -> None:
    """Raise `error_class` where there is no file at `path`."""
    with readable(error_class):
        if not path.is_file():
            raise error_class(f"{path} is not a file. {remedy}")


def check_regular(path: Path, error_class: type[UserError]) -> bool:
    """Whether a file is at `path`. Raises `error_class` where anything else is: a symbolic link leads elsewhere, and a
    pipe or a device may never end.
    """
    with readable(error_class):
        try:
            regular = stat.S_ISREG(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
    if not regular:
        raise _not_regular(path, error_class)
    return True


def open_regular(path: Path, flags: int, error_class: type[UserError]) -> int:
    """A descriptor of the file `path`. Raises FileNotFoundError, or `error_class` as check_regular does."""
    check_regular(path, error_class)  # a device is not even opened
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_regular(path, error_class) from None
        raise


def open_to_read(path: Path, most: int, *, pipes: bool = False) -> BinaryIO:
    """A file of `most` bytes or fewer, opened. With `pipes` it may also be a pipe; one that nobody writes to is empty,
    and not waited for.

    Raises OSError for a file of another kind, or a larger one, and for a name that no file can have.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a NUL character", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISREG(state.st_mode) or (pipes and stat.S_ISFIFO(state.st_mode))):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if state.st_size > most:
            raise too_large(path, most)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def too_large(path: Path, most: int) -> OSError:
    """The error of a file that has more than `most` bytes."""
    return OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))


def _not_regular(path: Path, error_class: type[UserError]) -> UserError:
    return error_class(
        f"{path} is a symbolic link, a folder, a pipe or a device where only a file may be. Put the file itself there."
    )
