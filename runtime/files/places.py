"""Places to write: asked before the work whether they can be, and what a disk refuses in words.

Knows paths and errors; writes nothing that stays.
"""

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from geodtr.runtime.errors import ConfigError, OutputExists, UserError
from geodtr.runtime.files.reading import real_path

_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
    *(errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
)


def check_new_folder(path: Path) -> None:
    """Ask before the work, not after: raise OutputExists when the folder `path` holds anything or is a file, UserError
    when it cannot be written.
    """
    with _answered(path):
        if path.is_dir():
            if any(path.iterdir()):
                raise OutputExists(
                    f"{path} exists and is not empty. Name another output folder, or remove it yourself."
                )
        elif path.exists() or path.is_symlink():
            raise OutputExists(f"{path} exists and is not a folder. Name another output folder, or remove it yourself.")
    check_writable(path)


def check_new_file(path: Path, endings: Sequence[str] = ()) -> None:
    """Raise OutputExists when anything is at a new file's path, UserError when nothing can,
    ConfigError as `check_ending` does where there are `endings` to have.
    """
    if endings:
        check_ending(path, endings)
    with _answered(path):
        if path.exists() or path.is_symlink():
            raise taken(path)
    check_writable(path)


def check_apart(out: Path, *inputs: Path) -> None:
    """Raise ConfigError where `out` is in one of the folders `inputs`: what reads the folder later, or packs
    it, would take the output for a part of it.
    """
    for each in inputs:
        if real_path(each) in real_path(out).parents:
            raise ConfigError(f"{out} is in {each}, which is read. Name a place outside it.")


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Raise ConfigError unless the name of the output file `path` ends in one of `endings`, in either case."""
    if path.suffix.lower() not in endings:
        raise ConfigError(f"{path} does not end in {' or '.join(endings)}, which is what is written. Rename it.")


def check_writable(path: Path) -> None:
    """Raise UserError when nothing can be written at `path`, which may be there already."""
    path = real_path(path)
    with _answered(path):
        places = path.parents if path.is_file() else (path, *path.parents)
        nearest = next(place for place in places if place.exists())
        tempfile.TemporaryFile(dir=nearest).close()
        # A name that is too long is found only where its folder is, and some folders are still to be made.
        for name in path.relative_to(nearest).parts:
            with suppress(FileNotFoundError):
                (nearest / name).lstat()


@contextmanager
def _answered(path: Path) -> Iterator[None]:
    """Turn what a disk or its permissions refuse, asked about `path`, into a UserError."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error) from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what a disk or its permissions refuse around `path` into a UserError; errors of other places pass."""
    try:
        yield
    except OSError as error:
        named = error.filename2 or error.filename  # of a copy, where it goes
        place = path.parent if named is None else Path(os.fsdecode(named))
        elsewhere = path.parent not in (place, *place.parents) and place not in path.parents
        # NumPy reports a write that the disk cut short without an error number.
        if error.errno in (None, errno.ENOSPC, errno.EDQUOT) and not elsewhere:
            raise UserError(
                f"No space is left on the disk of {path}: nothing was written. Free some, repeat."
            ) from None
        if error.errno == errno.EFBIG and not elsewhere:
            raise UserError(
                f"{path} is larger than a file may be here: nothing was written. Raise ulimit -f."
            ) from None
        if error.errno in _REFUSED and not elsewhere:
            raise _refused(path, error) from None
        raise


def _refused(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({error.strerror}). Name a place that you may write to.")


def taken(path: Path) -> OutputExists:
    """What to raise where `path` is there already."""
    return OutputExists(f"{path} exists. Name another output file, or remove it yourself.")
