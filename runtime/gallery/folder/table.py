"""references.sqlite: the references of a gallery, and the descriptor files and rows that are in use.

A reference exists if this table contains it; its descriptor is row `slot` of the descriptor files. In SQLite's
write-ahead mode one process writes while others read, each the state from when it began.
"""

import filecmp
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.row import ROW, Row, as_tile
from geodtr.runtime.sources.tile import Tile

FILE_NAME = "references.sqlite"
DAMAGES = (sqlite3.DatabaseError, msgspec.DecodeError, UnicodeDecodeError)
"""What reading a damaged table raises; the last where SQLite's own message quotes what it found."""
_PAGE = 4096
_WAIT = 60.0
"""Seconds to wait for another process that opens, closes or recovers the table; each is a matter of milliseconds."""

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

COLUMNS = ", ".join(ROW)


class State(NamedTuple):
    """The one row of the table `state`."""

    generation: int
    slots: int
    finished: bool


def create(gallery: Path) -> None:
    """Write an empty table into the folder `gallery`."""
    with closing(_connect(gallery / FILE_NAME, "mode=rwc")) as database:
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_SCHEMA)


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
    path, wal = gallery / FILE_NAME, gallery / f"{FILE_NAME}-wal"
    _check_whole(path, wal)
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
    _check_whole(gallery / FILE_NAME, gallery / f"{FILE_NAME}-wal")
    database = _connect(gallery / FILE_NAME, "mode=rw")
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
    """The table's state. Raises sqlite3.DatabaseError when it cannot be one."""
    row = database.execute("SELECT generation, slots, finished FROM state").fetchone()
    if row is None or not all(isinstance(value, int) and value >= 0 for value in row):
        raise sqlite3.DatabaseError(f"its state is {row}")
    generation, slots, finished = row
    return State(generation, slots, bool(finished))


def read_slots(database: sqlite3.Connection) -> NDArray[np.int64]:
    """The slots of all references, int64 [N], rising. Raises sqlite3.DatabaseError when they are inconsistent.

    Computed from the removed ones, because they are few: a million slots take a second to read.
    """
    slots = read_state(database).slots
    (count,) = database.execute("SELECT count(*) FROM reference").fetchone()
    removed = np.fromiter((slot for (slot,) in database.execute("SELECT slot FROM removed")), np.int64)
    if len(removed) + count != slots or not ((removed >= 0) & (removed < slots)).all():
        raise sqlite3.DatabaseError(f"it has {slots} descriptors, {count} references and {len(removed)} removed ones")
    (both,) = database.execute("SELECT count(*) FROM removed WHERE slot IN (SELECT slot FROM reference)").fetchone()
    if both:
        raise sqlite3.DatabaseError(f"{both} of its references are also marked as removed")
    return np.delete(np.arange(slots), removed)


def as_stored(row: Row | None) -> Tile:
    """The tile of a row that was looked up. Raises as `as_tile`, sqlite3.DatabaseError where there is none."""
    if row is None:
        raise sqlite3.DatabaseError("a reference is gone")
    return as_tile(row)


def _check_whole(path: Path, wal: Path) -> None:
    """Raise GalleryError when the table is missing or cut short."""
    if not path.is_file():
        raise GalleryError(f"{path} is missing. Copy the gallery again, or build it again.")
    try:
        logged = wal.stat().st_size > 0
    except FileNotFoundError:
        logged = False
    # Never opened to be looked into: closing it again would drop this process's locks on it. With a log, the last page
    # may be one that a full disk cut; the log has it whole.
    if path.stat().st_size % _PAGE and not logged:
        raise GalleryError(f"{path} is cut short. Copy the gallery again, or build it again.")


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


def _connect(path: Path, how: str) -> sqlite3.Connection:
    # Threads share a reader's connection under a lock of its own.
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?{how}", uri=True, isolation_level=None, timeout=_WAIT, check_same_thread=False
    )
