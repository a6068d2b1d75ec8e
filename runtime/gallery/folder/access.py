"""A gallery folder held by its one writer, or against writers; and what the disk and its permissions refuse."""

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.files import check_regular, lock_file, open_regular
from geodtr.runtime.gallery.folder.opening import LOCK, LONGEST, open_snapshot, table_errors
from geodtr.runtime.gallery.folder.table import FILE_NAME, check_manifest, check_slots, integrity_faults, read_state
from geodtr.runtime.gallery.folder.vectors import DescriptorFiles
from geodtr.runtime.gallery.manifest import GalleryManifest, read_gallery_manifest

_TRIES, _PAUSE = 10, 0.02
"""So often, and after so many seconds, is a lock tried again that a reader may hold for a moment (opening.py)."""
_LITTLE = 1 << 20
_COPIED = ("gallery.json", f"{FILE_NAME}*", "descriptors-*", "fixes*.json")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def lock(path: Path, closes: ExitStack, *, to_write: bool = True) -> None:
    """Hold the writer's lock until `closes` is closed; the operating system releases it when the process ends.

    Raises FileNotFoundError where there is none and, not `to_write`, none can be made.
    """
    try:
        file = open_regular(path / LOCK, os.O_RDWR | os.O_CREAT, GalleryError)
    except OSError as error:
        if to_write or error.errno not in _READ_ONLY:
            raise
        file = open_regular(path / LOCK, os.O_RDONLY, GalleryError)
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
def held_to_copy(path: Path) -> Iterator[dict[str, Path]]:
    """Keep writers from a gallery while its files are copied, even from a read-only one.

    Yields, by its name in the copy, the file to copy: all of the gallery, with its calibrations, but what a writer set
    aside or a compaction left that was cut short, and what is another's. A table with a log is one that has the log's
    changes: the first reader would merge them, and change the files.

    Raises GalleryError when it has a writer, its parts do not fit, or, in the end, when a writer came that nothing
    could keep away.
    """
    manifest = read_gallery_manifest(path)
    with ExitStack() as closes:
        free = False
        with table_errors(path), refusals(path):
            try:
                lock(path, closes, to_write=False)
            except FileNotFoundError:
                free = True
            # Held open, because the last connection to be closed may rewrite the table.
            database = open_snapshot(path, closes)
            instead: dict[Path, Path | None] = dict.fromkeys(check_parts(path, database, manifest).leftovers())
            log = path / f"{FILE_NAME}-wal"
            # What is of the processes that have the gallery open: its lock, and an index of the log.
            instead[path / f"{FILE_NAME}-shm"] = None
            if log.exists() and log.stat().st_size:
                instead[log], instead[path / FILE_NAME] = None, _merged(path, database, closes)
        yield {
            file.name: source
            for file in sorted(file for pattern in _COPIED for file in path.glob(pattern))
            if (source := instead.get(file, file)) is not None
            and check_regular(file, GalleryError)
            and file.stat().st_size
        }
        if free and (path / LOCK).exists():
            raise GalleryError(f"{path} was written by another process meanwhile. Repeat when it has ended.")


def _merged(path: Path, database: sqlite3.Connection, closes: ExitStack) -> Path:
    """A copy of the table without a log, until `closes` is closed."""
    try:
        copy = Path(closes.enter_context(TemporaryDirectory())) / FILE_NAME
        with closing(sqlite3.connect(copy)) as target:
            database.backup(target)
            target.execute("PRAGMA journal_mode = WAL")
    except (OSError, sqlite3.OperationalError) as error:
        raise GalleryError(
            f"The table of {path} has changes in a log, so that a copy with them is packed, and none could be made "
            f"({error}). Name a folder that has room for {FILE_NAME}: export TMPDIR=FOLDER"
        ) from None
    return copy


def check_parts(path: Path, database: sqlite3.Connection, manifest: GalleryManifest) -> DescriptorFiles:
    """The descriptors of a gallery, all of whose parts were compared with what was written: the table's pages with each
    other, manifest and state with their checksums, numbers of rows with the files.
    """
    for fault in integrity_faults(database, 1):
        raise sqlite3.DatabaseError(fault)
    check_manifest(path, database)
    state = read_state(database)
    check_slots(database)
    files = DescriptorFiles(path, state.generation, manifest.descriptor_size, manifest.storage)
    files.check(state.slots)
    return files


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
        if error.errno in _READ_ONLY:
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


class NoSpace(GalleryError):
    """The disk of a gallery is full."""


def _no_space(path: Path) -> NoSpace:
    return NoSpace(
        f"No space is left on the disk of {path}, or ulimit -f allows no larger file. All that was acknowledged is "
        "kept. Free some, and repeat the command: it goes on from there."
    )


def _read_only(path: Path) -> GalleryError:
    return GalleryError(f"{path} cannot be written: it is read-only for you. Copy it to a place that you may write to.")
