"""references.sqlite: the references of a gallery, and the descriptor files and rows that are in use.

A reference exists if this table contains it; its descriptor is row `slot` of the descriptor files. It is opened by
opening.py.
"""

import sqlite3
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.manifest import FILE_NAME as MANIFEST
from geodtr.runtime.gallery.row import ROW, Row, as_tile
from geodtr.runtime.geodesy import Near
from geodtr.runtime.sources.tile import Tile

FILE_NAME = "references.sqlite"
DAMAGES = (sqlite3.DatabaseError, msgspec.DecodeError, UnicodeDecodeError)
"""What reading a damaged table raises; the last where SQLite's own message quotes what it found."""
SHOWN = 40
"""Characters that a message shows of what does not belong into the table."""
SCHEMA = """
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
CHECKSUMS = """
CREATE TABLE checksums (
    manifest INTEGER NOT NULL,     -- CRC-32 of gallery.json
    state INTEGER NOT NULL         -- CRC-32 of the row of `state`
);
"""

_BANDS = 100
"""Bands of latitude in a degree: each some 1.1 km wide."""
PLACES = f"""
CREATE INDEX places ON reference (CAST(lat * {_BANDS} AS INTEGER), lon, lat) WHERE lat IS NOT NULL;
"""
_MOST_BANDS = 200
_IN_BAND = (
    f"SELECT slot, lat, lon FROM reference WHERE lat IS NOT NULL AND CAST(lat * {_BANDS} AS INTEGER) = ? "
    "AND lon BETWEEN ? AND ?"
)
COLUMNS = ", ".join(ROW)
PARAMETERS = 500
"""Of one statement; SQLite before 3.32 takes 999 at most."""


class State(NamedTuple):
    """The one row of the table `state`."""

    generation: int
    slots: int
    finished: bool


def read_state(database: sqlite3.Connection) -> State:
    """The table's state. Raises sqlite3.DatabaseError when it cannot be one, or is not what was written."""
    rows = database.execute("SELECT generation, slots, finished FROM state LIMIT 2").fetchall()
    if len(rows) != 1 or not all(isinstance(value, int) and value >= 0 for value in rows[0]):
        raise sqlite3.DatabaseError(f"its state is {str(rows)[:SHOWN]}")
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
    return _has(database, "checksums")


def complete_schema(gallery: Path, database: sqlite3.Connection) -> None:
    """Add what a table of an earlier version lacks, within a transaction: checksums of what the manifest and the state
    are now, and the index of places.
    """
    if not has_checksums(database):
        state = read_state(database)
        database.execute(CHECKSUMS)
        database.execute("INSERT INTO checksums VALUES (?, ?)", (_crc_of_manifest(gallery), _checksum(state)))
    if not _has(database, "places"):
        database.execute(PLACES)


def _has(database: sqlite3.Connection, name: str) -> bool:
    return bool(database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone())


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


def read_removed(database: sqlite3.Connection) -> NDArray[np.int64]:
    """The slots of removed references, int64 [M]. Raises sqlite3.DatabaseError when they are inconsistent.

    All others are taken to be there: to count ten million references takes seconds. See check_slots.
    """
    slots = read_state(database).slots
    read = database.execute("SELECT slot FROM removed LIMIT ?", (slots + 1,))
    removed = np.fromiter((slot for (slot,) in read), np.int64)
    if len(removed) > slots or not ((removed >= 0) & (removed < slots)).all():
        raise sqlite3.DatabaseError(f"it has {slots} descriptors, and references that were removed from other rows")
    # CROSS: for each of the few that were removed; SQLite might look up each of the many others.
    (both,) = database.execute("SELECT count(*) FROM removed CROSS JOIN reference USING (slot)").fetchone()
    if both:
        raise sqlite3.DatabaseError(f"{both} of its references are also marked as removed")
    return removed


def check_slots(database: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where descriptors have no reference, or references no descriptor."""
    slots, removed = read_state(database).slots, len(read_removed(database))
    if (count := count_references(database, slots)) + removed != slots:
        raise sqlite3.DatabaseError(f"it has {slots} descriptors, {count} references and {removed} removed ones")


def slots_near(database: sqlite3.Connection, near: Near) -> NDArray[np.int64] | None:
    """The slots of the references within `near`, rising, int64 [M]; None where the table would have to be read as a
    whole, because the circle is too wide, or an earlier version wrote the table.
    """
    box = near.box
    bands = range(int(box.south * _BANDS), int(box.north * _BANDS) + 1)
    if len(bands) > _MOST_BANDS or not _has(database, "places"):
        return None
    spans = [(box.west, box.east)] if box.west <= box.east else [(box.west, 180.0), (-180.0, box.east)]
    rows = [row for band in bands for span in spans for row in database.execute(_IN_BAND, (band, *span))]
    slots, lat, lon = np.array(rows, np.float64).reshape(-1, 3).T
    return np.sort(slots[near.holds(lat, lon)].astype(np.int64))


def has_positions(database: sqlite3.Connection) -> bool:
    """Whether any reference has a position."""
    return bool(database.execute("SELECT 1 FROM reference WHERE lat IS NOT NULL LIMIT 1").fetchone())


def as_stored(row: Row | None) -> Tile:
    """The tile of a row that was looked up. Raises as `as_tile`, sqlite3.DatabaseError where there is none."""
    if row is None:
        raise sqlite3.DatabaseError("a reference is gone")
    return as_tile(row)


def _checksum(state: State) -> int:
    return zlib.crc32(f"{state.generation} {state.slots} {int(state.finished)}".encode())


def _checksums(database: sqlite3.Connection) -> tuple[Any, Any]:
    """Of the manifest and of the state, as they were written; (None, None) where there are none."""
    rows = database.execute("SELECT manifest, state FROM checksums LIMIT 2").fetchall()
    return rows[0] if len(rows) == 1 else (None, None)


def _crc_of_manifest(gallery: Path) -> int:
    return zlib.crc32((gallery / MANIFEST).read_bytes())
