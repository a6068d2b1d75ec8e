"""references.sqlite opened, as a gallery's and nothing else: to be read at one moment's state, or written.

In SQLite's write-ahead mode one process writes while others read, each the state from when it began.
"""

import filecmp
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from geodtr.runtime.errors import GalleryError, UserError
from geodtr.runtime.files import check_regular, lock_file, open_regular, write_bytes
from geodtr.runtime.files.sqlite_file import BoundedConnection, connect
from geodtr.runtime.gallery.folder.log import has_lost_commit
from geodtr.runtime.gallery.folder.table import (
    CHECKSUMS,
    DAMAGES,
    FILE_NAME,
    PLACES,
    SCHEMA,
    SHOWN,
    complete_schema,
    read_state,
)
from geodtr.runtime.gallery.location import command

LOCK = "writer.lock"
KEPT_LOG = f"set-aside-{FILE_NAME}-wal-"
"""The beginning of a copy's name; its end is the CRC-32 of its content."""
_PAGE = 4096
_WAIT = 60.0
"""Seconds to wait for another process that opens, closes or recovers the table; each is a matter of milliseconds."""
LONGEST = 1 << 24
"""Bytes of a row at most."""
_DEADLINE, _BYTES_A_SECOND = 60.0, 1 << 20
"""Seconds that a statement may take, and so many bytes of the table that add one: pages that name each other in
circles would be read for ever.
"""


def create(gallery: Path) -> None:
    """Write an empty table into the folder `gallery`, which holds its manifest."""
    with closing(_connect(gallery / FILE_NAME, "mode=rwc")) as database:
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA)
        with transaction(database):
            complete_schema(gallery, database)


@contextmanager
def table_errors(gallery: Path) -> Iterator[None]:
    """Convert SQLite's errors on a damaged table into a GalleryError."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # use of a closed gallery, not damage
    except DAMAGES as error:
        raise GalleryError(
            f"{gallery / FILE_NAME} cannot be read ({error}): truncated, damaged or busy. Copy the gallery again, or "
            f"see what is left: {command('verify', gallery)}"
        ) from None


def open_snapshot(gallery: Path, closes: ExitStack) -> sqlite3.Connection:
    """Open the table for reading, at a state that stays while the connection lives; `closes` will close it.

    Nothing is written into a folder that is read-only or on a full disk: there, the table is read from a copy. Raises
    GalleryError when the file is missing or cut short, or has no room for its copy, sqlite3.DatabaseError when it is
    damaged otherwise.
    """
    path, wal = _checked(gallery)
    while True:
        try:
            return _begin(path, "mode=rw", closes)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
        # SQLite cannot make the index of the write-ahead log here, without which no writer would know of this reader.
        with ExitStack() as mine:
            try:
                folder = Path(mine.enter_context(tempfile.TemporaryDirectory()))
                whole = _copy((path, wal), folder)
            except OSError as error:
                raise GalleryError(
                    f"{gallery} cannot be written, so that its table is read from a copy, and none could be made "
                    f"({error}). Name a folder that has room for {FILE_NAME}: export TMPDIR=FOLDER"
                ) from None
            if whole:
                database = _begin(folder / FILE_NAME, "mode=rw", mine)
                closes.push(mine.pop_all())
                return database


def open_for_writing(gallery: Path) -> sqlite3.Connection:
    """Open the table; a transaction is on the disk when it is committed. Raises as open_snapshot."""
    database = _connect(_checked(gallery)[0], "mode=rw")
    database.execute("PRAGMA synchronous = FULL")
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _checked(gallery: Path) -> tuple[Path, Path]:
    """The table and its log. Raises GalleryError when the table is missing or cut short, or another kind of file is
    where SQLite would open one.
    """
    path, wal, *_ = files = [gallery / f"{FILE_NAME}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")]
    there = [check_regular(file, GalleryError) for file in files]
    if not there[0]:
        raise GalleryError(f"{path} is missing. Copy the gallery again, or build it again.")
    try:
        logged = wal.stat().st_size > 0
    except FileNotFoundError:
        logged = False
    # Never opened to be looked into: closing it again would drop this process's locks on it. With a log, the last page
    # may be one that a full disk cut; the log has it whole.
    if path.stat().st_size % _PAGE and not logged:
        raise GalleryError(f"{path} is cut short. Copy the gallery again, or build it again.")
    if logged:
        _keep_log(gallery, wal)
    return path, wal


def _keep_log(gallery: Path, wal: Path) -> None:
    """Copy a damaged log of a killed writer before it is opened, because SQLite would delete it with all that it cannot
    read. A writer that is alive has done so.
    """
    with suppress(OSError, UserError):  # of a folder that is read-only SQLite deletes nothing either
        descriptor = open_regular(gallery / LOCK, os.O_RDONLY, GalleryError)
        try:
            log = wal.read_bytes() if lock_file(descriptor, shared=True) == "ours" else b""
        finally:
            os.close(descriptor)
        if has_lost_commit(log, _PAGE):
            write_bytes(gallery / f"{KEPT_LOG}{zlib.crc32(log):08x}", log)


def _copy(files: Sequence[Path], folder: Path) -> bool:
    """Copy those that exist into `folder`, which is new; whether a second look finds all as they were copied.

    Then the copies are of one moment, that between the two looks.
    """
    for file in files:
        with suppress(FileNotFoundError):
            shutil.copyfile(file, folder / file.name)
    return all(_same(file, folder / file.name) for file in files)


def _same(file: Path, copy: Path) -> bool:
    try:
        return filecmp.cmp(file, copy, shallow=False)
    except FileNotFoundError:
        return not file.exists() and not copy.exists()


def _begin(path: Path, how: str, closes: ExitStack) -> sqlite3.Connection:
    with ExitStack() as mine:
        database = mine.enter_context(closing(_connect(path, how)))
        database.execute("BEGIN")
        read_state(database)
        closes.push(mine.pop_all())
    return database


def _connect(path: Path, how: str) -> BoundedConnection:
    """Open the table, trusting nothing in it. Raises sqlite3.DatabaseError when it holds anything
    but what was created: a view or a trigger of another's would run whenever it is read or written.
    """
    database = connect(
        path,
        how,
        largest=LONGEST,
        seconds=_DEADLINE + (path.stat().st_size / _BYTES_A_SECOND if path.exists() else 0),
        isolation_level=None,
        timeout=_WAIT,
        check_same_thread=False,  # threads share a reader's connection under a lock of its own
    )
    try:
        if sys.version_info >= (3, 12):
            database.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        # The first that reads the file; one that is being created holds nothing yet.
        rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 10").fetchall()
        schema = {(*names, _plain(sql)) for *names, sql in rows}
        if rows and schema not in _schemas():
            name = min(str(row[1]) for row in schema - _schemas()[0] or _schemas()[0] - schema)
            raise sqlite3.DatabaseError(f"its tables are not a gallery's: see {name[:SHOWN]!r}")
    except BaseException:
        database.close()
        raise
    return database


@cache
def _schemas() -> tuple[set[tuple[Any, ...]], ...]:
    """What may be in sqlite_master: of today, and of earlier versions, without the index of places, or checksums."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(SCHEMA + CHECKSUMS + PLACES)
        rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    today = {(*names, _plain(sql)) for *names, sql in rows}
    before = {row for row in today if row[1] != "places"}
    return today, before, {row for row in before if row[1] != "checksums"}


def _plain(sql: object) -> str:
    """SQL without comments and line breaks, which may differ."""
    return " ".join(re.sub(r"--[^\n]*", "", str(sql)).split())
