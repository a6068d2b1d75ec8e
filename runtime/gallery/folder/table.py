"""references.sqlite: the references of a gallery, and the descriptor files and rows that are in use.

A reference exists if this table contains it; its descriptor is row `slot` of the descriptor files. In SQLite's
write-ahead mode one process writes while others read, each the state from when it began.
"""

import filecmp
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError, UserError
from geodtr.runtime.files import check_regular, lock_file, open_regular, write_bytes
from geodtr.runtime.gallery.folder.log import has_lost_commit
from geodtr.runtime.gallery.manifest import FILE_NAME as MANIFEST
from geodtr.runtime.gallery.row import ROW, Row, as_tile
from geodtr.runtime.sources.tile import Tile

FILE_NAME = "references.sqlite"
LOCK = "writer.lock"
KEPT_LOG = f"set-aside-{FILE_NAME}-wal-"
"""The beginning of a copy's name; its end is the CRC-32 of its content."""
DAMAGES = (sqlite3.DatabaseError, msgspec.DecodeError, UnicodeDecodeError)
"""What reading a damaged table raises; the last where SQLite's own message quotes what it found."""
_PAGE = 4096
_WAIT = 60.0
"""Seconds to wait for another process that opens, closes or recovers the table; each is a matter of milliseconds."""
LONGEST = 1 << 24
"""Bytes of a row at most. Python 3.10 sets SQLite no limits: there a row takes the memory that its file asks for."""
_DEADLINE, _BYTES_A_SECOND = 60.0, 1 << 20
"""Seconds that a statement may take, and so many bytes of the table that add one: pages that name each other in
circles would be read for ever.
"""
_SHOWN = 40
_STEPS = 100_000
"""Instructions of SQLite's between two looks at the clock, some milliseconds."""

_SCHEMA = """
CREATE TABLE reference (
    slot INTEGER PRIMARY KEY,      -- row of the descriptor files
    id TEXT NOT NULL UNIQUE,
    file TEXT NOT NULL,            -- where the pixels came from
    lat REAL,                      -- degrees, WGS 84; NULL where unknown
    lon REAL,
    heading REAL,                  -- of the upper edge, degrees clockwise from north
    metres_per_pixel REAL,
    more TEXT NOT NULL,            -- JSON object
    checksum INTEGER NOT NULL      -- CRC-32 of id to more and of the descriptor's float32 bytes
);
CREATE TABLE state (
    generation INTEGER NOT NULL,   -- of the descriptor files
    slots INTEGER NOT NULL,        -- rows in use, including rows of removed references
    finished INTEGER NOT NULL      -- 0 while the gallery is being built
);
INSERT INTO state VALUES (1, 0, 0);
CREATE TABLE removed (
    slot INTEGER PRIMARY KEY       -- rows of the descriptor files that are no longer used
);
CREATE TRIGGER keep_slot AFTER DELETE ON reference BEGIN INSERT INTO removed VALUES (old.slot); END;
"""
_CHECKSUMS = """
CREATE TABLE checksums (
    manifest INTEGER NOT NULL,     -- CRC-32 of gallery.json
    state INTEGER NOT NULL         -- CRC-32 of the row of `state`
);
"""

COLUMNS = ", ".join(ROW)


class State(NamedTuple):
    """The one row of the table `state`."""

    generation: int
    slots: int
    finished: bool


def create(gallery: Path) -> None:
    """Write an empty table into the folder `gallery`, which holds its manifest."""
    with closing(_connect(gallery / FILE_NAME, "mode=rwc")) as database:
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_SCHEMA)
        with transaction(database):
            add_checksums(gallery, database)


@contextmanager
def readable(gallery: Path) -> Iterator[None]:
    """Convert SQLite's errors on a damaged table into a GalleryError."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # use of a closed gallery, not damage
    except DAMAGES as error:
        raise GalleryError(
            f"{gallery / FILE_NAME} cannot be read ({error}): truncated, damaged or busy. Copy the gallery again, or "
            f"see what is left: geodtr-export gallery verify {gallery}"
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


def read_state(database: sqlite3.Connection) -> State:
    """The table's state. Raises sqlite3.DatabaseError when it cannot be one, or is not what was written."""
    rows = database.execute("SELECT generation, slots, finished FROM state LIMIT 2").fetchall()
    if len(rows) != 1 or not all(isinstance(value, int) and value >= 0 for value in rows[0]):
        raise sqlite3.DatabaseError(f"its state is {str(rows)[:_SHOWN]}")
    generation, slots, finished = rows[0]
    state = State(generation, slots, bool(finished))
    if has_checksums(database) and _checksums(database)[1] != _checksum(state):
        raise sqlite3.DatabaseError(f"its state, {slots} descriptors of generation {generation}, is not as written")
    return state


def write_state(database: sqlite3.Connection, state: State) -> None:
    """Replace the table's state, within a transaction."""
    database.execute("UPDATE state SET generation = ?, slots = ?, finished = ?", state)
    database.execute("UPDATE checksums SET state = ?", (_checksum(state),))


def has_checksums(database: sqlite3.Connection) -> bool:
    """Whether the table has checksums. One of an earlier version has none: it is read without, and the first writer
    adds them to what it finds, once all else that it verifies is right.
    """
    return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = 'checksums'").fetchone())


def add_checksums(gallery: Path, database: sqlite3.Connection) -> None:
    """Add checksums of what the manifest and the state are now, within a transaction."""
    state = read_state(database)
    database.execute(_CHECKSUMS)
    database.execute("INSERT INTO checksums VALUES (?, ?)", (_crc_of_manifest(gallery), _checksum(state)))


def check_manifest(gallery: Path, database: sqlite3.Connection) -> None:
    """Raise GalleryError when the manifest is not as it was written."""
    if has_checksums(database) and _checksums(database)[0] != _crc_of_manifest(gallery):
        raise GalleryError(
            f"{gallery / MANIFEST} was changed after it was written: its checksum in {FILE_NAME} is another. Copy it "
            "again from where the gallery came from, or build the gallery again."
        )


def integrity_faults(database: sqlite3.Connection, most: int = 100) -> list[str]:
    """What is wrong with the table's pages and its index."""
    results = [str(text) for (text,) in database.execute(f"PRAGMA integrity_check({most})")]
    return [] if results == ["ok"] else results


def count_references(database: sqlite3.Connection, slots: int) -> int:
    """How many there are; more than `slots`, which cannot be, are not all counted."""
    # Without the limit SQLite counts in one step, which no deadline ends.
    counted = database.execute("SELECT count(*) FROM (SELECT 1 FROM reference LIMIT ?)", (slots + 1,))
    return int(counted.fetchone()[0])


def read_slots(database: sqlite3.Connection) -> NDArray[np.int64]:
    """The slots of all references, int64 [N], rising. Raises sqlite3.DatabaseError when they are inconsistent.

    Computed from the removed ones, because they are few: a million slots take a second to read.
    """
    slots = read_state(database).slots
    count = count_references(database, slots)
    if count > slots:
        raise sqlite3.DatabaseError(f"it has {slots} descriptors and {count} references")
    read = database.execute("SELECT slot FROM removed LIMIT ?", (slots - count + 1,))
    removed = np.fromiter((slot for (slot,) in read), np.int64)
    if len(removed) + count != slots or not ((removed >= 0) & (removed < slots)).all():
        raise sqlite3.DatabaseError(f"it has {slots} descriptors, {count} references and {len(removed)} removed ones")
    (both,) = database.execute("SELECT count(*) FROM removed JOIN reference USING (slot)").fetchone()
    if both:
        raise sqlite3.DatabaseError(f"{both} of its references are also marked as removed")
    return np.delete(np.arange(slots), removed)


def as_stored(row: Row | None) -> Tile:
    """The tile of a row that was looked up. Raises as `as_tile`, sqlite3.DatabaseError where there is none."""
    if row is None:
        raise sqlite3.DatabaseError("a reference is gone")
    return as_tile(row)


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


class _Connection(sqlite3.Connection):
    """One whose statements end: those that take too long raise sqlite3.OperationalError."""

    _until = 0.0

    def limit(self, seconds: float) -> None:
        """Give each statement so many seconds."""
        self._seconds = seconds
        self.set_progress_handler(lambda: time.monotonic() > self._until, _STEPS)

    def execute(self, *asked: Any) -> sqlite3.Cursor:
        self._until = time.monotonic() + self._seconds
        return super().execute(*asked)

    def executemany(self, *asked: Any) -> sqlite3.Cursor:
        self._until = time.monotonic() + self._seconds
        return super().executemany(*asked)


def _connect(path: Path, how: str) -> sqlite3.Connection:
    """Open the table, trusting nothing in it. Raises sqlite3.DatabaseError when it holds anything
    but what was created: a view or a trigger of another's would run whenever it is read or written.
    """
    # Threads share a reader's connection under a lock of its own.
    database = sqlite3.connect(
        f"{path.resolve().as_uri()}?{how}",
        uri=True,
        isolation_level=None,
        timeout=_WAIT,
        check_same_thread=False,
        factory=_Connection,
    )
    try:
        database.limit(_DEADLINE + (path.stat().st_size / _BYTES_A_SECOND if path.exists() else 0))
        if sys.version_info >= (3, 11):
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        if sys.version_info >= (3, 12):
            database.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        # The first that reads the file; one that is being created holds nothing yet.
        rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 10").fetchall()
        schema = {(*names, _plain(sql)) for *names, sql in rows}
        if rows and schema not in _schemas():
            name = min(str(row[1]) for row in schema - _schemas()[0] or _schemas()[0] - schema)
            raise sqlite3.DatabaseError(f"its tables are not a gallery's: see {name[:_SHOWN]!r}")
    except BaseException:
        database.close()
        raise
    return database


@cache
def _schemas() -> tuple[set[tuple[Any, ...]], ...]:
    """What may be in sqlite_master: of today, and of an earlier version, whose tables have no checksums."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_SCHEMA + _CHECKSUMS)
        rows = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    today = {(*names, _plain(sql)) for *names, sql in rows}
    return today, {row for row in today if row[1] != "checksums"}


def _plain(sql: object) -> str:
    """SQL without comments and line breaks, which may differ."""
    return " ".join(re.sub(r"--[^\n]*", "", str(sql)).split())


def _checksum(state: State) -> int:
    return zlib.crc32(f"{state.generation} {state.slots} {int(state.finished)}".encode())


def _checksums(database: sqlite3.Connection) -> tuple[Any, Any]:
    """Of the manifest and of the state, as they were written; (None, None) where there are none."""
    rows = database.execute("SELECT manifest, state FROM checksums LIMIT 2").fetchall()
    return rows[0] if len(rows) == 1 else (None, None)


def _crc_of_manifest(gallery: Path) -> int:
    return zlib.crc32((gallery / MANIFEST).read_bytes())
