"""A gallery folder opened for reading.

Its files:

gallery.json         the manifest (gallery/manifest.py)
references.sqlite    one row per reference: id, file, position, further values (table.py)
descriptors-*        the descriptors (vectors.py)
writer.lock          held by the one process that writes, if any (writer.py)
set-aside-*          what a writer found and did not know enough of to delete it (writer.py)

Each is a file: where a link, a pipe or a device is, the gallery is refused.

Any number of processes may read while one writes. Each reads the references as of its opening.
"""

import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.files import check_new_folder, check_regular, write_bytes
from geodtr.runtime.files.documents import read_document
from geodtr.runtime.gallery.base import GalleryInfo, PositionedRows, Positions, check_hits, check_search, no_positions
from geodtr.runtime.gallery.folder.opening import open_snapshot, table_errors
from geodtr.runtime.gallery.folder.table import (
    COLUMNS,
    PARAMETERS,
    State,
    as_stored,
    check_manifest,
    has_positions,
    read_removed,
    read_state,
    slots_near,
)
from geodtr.runtime.gallery.folder.vectors import DescriptorFiles, Mapped
from geodtr.runtime.gallery.location import closed, command
from geodtr.runtime.gallery.manifest import FILE_NAME as MANIFEST
from geodtr.runtime.gallery.manifest import GalleryManifest, read_gallery_manifest
from geodtr.runtime.geodesy import Near
from geodtr.runtime.search.exact import Hits, search, search_compressed, search_correlated
from geodtr.runtime.search.matmul import library
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

_FETCHED = 1024
_FEW = 200
"""More tiles than this are not asked for to be asked for again."""
_KEPT = 1 << 14
"""Tiles that stay in memory, some 10 MB: those around a vehicle are found again and again."""
_LOOKED_THROUGH = 50_000
"""Up to so many references the positions of all are compared faster than the table is asked for those nearby."""


def is_begun(path: Path) -> bool:
    """Whether a gallery exists or was begun in the folder `path`. Raises OutputExists when it contains anything else,
    UserError when it cannot be written.
    """
    if os.path.isfile(path / MANIFEST):  # noqa: PTH113 (Path.is_file raises where check_new_folder explains)
        return True
    check_new_folder(path)
    return False


class FolderGallery(PositionedRows):
    """A Gallery in a folder: references in rows 0 to N - 1, in the order of addition.

    It holds a snapshot of the table until it is closed or deleted; meanwhile the table's log keeps all later changes.
    """

    def __init__(
        self, path: Path, manifest: GalleryManifest, database: sqlite3.Connection, mapped: Mapped, closes: ExitStack
    ) -> None:
        """For `open_folder`. `closes` ends what the gallery holds open."""
        super().__init__()
        self.path = path
        self.manifest = manifest
        self._database = database
        self._mapped = mapped
        self._close = weakref.finalize(self, closes.close)
        self._kept = dict[int, Tile]()
        removed = read_removed(database)
        self._count = len(mapped.exact) - len(removed)
        # Rows are slots unless references were removed.
        self._slots = np.delete(np.arange(len(mapped.exact)), removed) if len(removed) else None

    def __len__(self) -> int:
        self._check_open()
        return self._count

    def _check_open(self) -> None:
        if not self._close.alive:
            raise closed(self.name)

    def close(self) -> None:
        """Close the table; values that were read stay usable."""
        self._close()

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def info(self) -> GalleryInfo:
        """The gallery in figures."""
        exact, compressed = self._mapped.exact, self._mapped.compressed
        packed = 0 if compressed is None else compressed.values.nbytes
        # A scale and an error of 4 bytes belong to each compressed row.
        packed += 0 if compressed is None else 8 * len(compressed.values)
        with self._lock, table_errors(self.path):
            finished = read_state(self._database).finished
            (positioned,) = self._database.execute("SELECT count(*) FROM reference WHERE lat IS NOT NULL").fetchone()
        return GalleryInfo(
            references=len(self),
            positioned=positioned,
            removed=len(exact) - len(self),
            finished=finished,
            descriptor_size=self.manifest.descriptor_size,
            storage=self.manifest.storage,
            index=f"flat, by {library(self.manifest.storage)}",
            searched_bytes=packed or exact.nbytes,
            bytes=packed + exact.nbytes,
            source=self.manifest.source,
            made_by=self.manifest.made_by,
        )

    def tile(self, row: int) -> Tile:
        """What is known of the reference in `row`. Raises IndexError when there is no such row."""
        return self.tiles([row])[0]

    def tiles(self, rows: Iterable[int]) -> list[Tile]:
        """What is known of the references in `rows`, in their order. Raises IndexError when a row does not exist."""
        self._check_open()
        rows = list(rows)
        if len(rows) > _FEW:
            return self._read_tiles([self._slot(row) for row in rows])
        query, tiles = f"SELECT {COLUMNS} FROM reference WHERE slot = ?", list[Tile]()
        with self._lock, table_errors(self.path):
            for row in rows:
                tile = self._kept.get(row)
                if tile is None:
                    tile = as_stored(self._database.execute(query, (self._slot(row),)).fetchone())
                    if len(self._kept) >= _KEPT:
                        self._kept.clear()
                    self._kept[row] = tile
                # The caller may change its own.
                tiles.append(replace(tile, more=deepcopy(tile.more) if tile.more else {}))
        return tiles

    def _read_tiles(self, slots: Sequence[int]) -> list[Tile]:
        """Many at once, of which none is kept."""
        tiles = list[Tile]()
        with self._lock, table_errors(self.path):
            for start in range(0, len(slots), PARAMETERS):
                part = slots[start : start + PARAMETERS]
                query = f"SELECT slot, {COLUMNS} FROM reference WHERE slot IN ({', '.join('?' * len(part))})"
                held = {row[0]: row[1:] for row in self._database.execute(query, part)}
                tiles += [as_stored(held.get(slot)) for slot in part]
        return tiles

    def all_tiles(self) -> Iterator[Tile]:
        """Every reference in the order of the rows, a block of them in memory at a time."""
        query = f"SELECT {COLUMNS} FROM reference WHERE slot BETWEEN ? AND ? ORDER BY slot"
        for start in range(0, len(self), _FETCHED):
            end = min(start + _FETCHED, len(self))
            with self._lock, table_errors(self.path):
                rows = self._database.execute(query, (self._slot(start), self._slot(end - 1))).fetchall()
                if len(rows) != end - start:
                    raise sqlite3.DatabaseError("a reference is gone")
                tiles = [as_stored(row) for row in rows]
            yield from tiles

    def described(self) -> Iterator[tuple[list[Tile], Descriptors]]:
        """Every reference in the order of the rows with its descriptor, float32 [M, D], by the block."""
        tiles = self.all_tiles()
        for start in range(0, len(self), _FETCHED):
            block = list(islice(tiles, _FETCHED))
            yield block, self.descriptors(np.arange(start, start + len(block)))

    def descriptors(self, rows: Rows) -> Descriptors:
        """A copy of the float32 descriptors [M, D] of `rows`, int64 [M]."""
        self._check_open()
        return self._mapped.exact[rows if self._slots is None else self._slots[rows]]

    def search(self, queries: Descriptors, top: int, near: Near | None = None, rows: Rows | None = None) -> Hits:
        """The `top` references with the largest cosine to each query [Q, D], best first; fewer where there are fewer.

        The gallery's scorer, if it has one, compares instead. With `near`, only references within it are found, and
        those without a position never are; with `rows`, only these. Every storage gives the answer of float32. Raises
        as Gallery.search.
        """
        self._check_open()
        check_search(self.name, self.manifest.query_size, queries, top, near)
        among = self._slots if near is None else self._near(near)
        if rows is not None:
            slots = rows if self._slots is None else self._slots[rows]
            among = slots if near is None or among is None else np.intersect1d(slots, among, assume_unique=True)
        exact, compressed = self._mapped.exact, self._mapped.compressed
        if self.manifest.scorer is not None:
            hits = search_correlated(queries, exact, top, self.manifest.scorer, among)
        elif compressed is None:
            hits = search(queries, exact, top, among)
        else:
            hits = search_compressed(queries, compressed, exact, top, among)
        check_hits(self.name, queries, hits)
        return hits if self._slots is None else replace(hits, rows=np.searchsorted(self._slots, hits.rows))

    def attached(self, name: str) -> bytes | None:
        """The file `name` of the folder. Raises GalleryError when it cannot be read."""
        self._check_open()
        try:
            return read_document(self.path / name) if check_regular(self.path / name, GalleryError) else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise GalleryError(f"{self.path / name} cannot be read ({error.strerror}).") from None

    def attach(self, name: str, content: bytes) -> str:
        """Write the file `name` of the folder durably. Raises GalleryError when it is a link."""
        self._check_open()
        check_regular(self.path / name, GalleryError)
        write_bytes(self.path / name, content)
        return str(self.path / name)

    def _slot(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"{self.path} has no row {row}; its rows are 0 to {len(self) - 1}.")
        return int(row) if self._slots is None else int(self._slots[row])

    def _read_positions(self) -> Positions:
        with table_errors(self.path):
            cursor = self._database.execute("SELECT slot, lat, lon FROM reference ORDER BY slot")
            try:
                read = np.fromiter(cursor, [("slot", np.int64), ("lat", np.float64), ("lon", np.float64)], len(self))
            except (TypeError, ValueError):
                raise sqlite3.DatabaseError("a position is not a number") from None
            if not np.array_equal(read["slot"], np.arange(len(self)) if self._slots is None else self._slots):
                raise sqlite3.DatabaseError("its rows do not belong to the descriptors")
        return np.arange(len(read), dtype=np.int64), read["lat"], read["lon"]

    def _near(self, near: Near) -> Rows:
        slots = None
        if len(self) > _LOOKED_THROUGH:
            with self._lock, table_errors(self.path):
                slots = slots_near(self._database, near)
        if slots is None:
            rows = np.flatnonzero(near.holds(self.lat, self.lon))
            slots = rows if self._slots is None else self._slots[rows]
        if len(self) and not len(slots):
            with self._lock, table_errors(self.path):
                if not has_positions(self._database):
                    raise no_positions(self.name)
        return slots


def open_folder(path: Path) -> FolderGallery:
    """Open the gallery folder `path` as it is at this moment, in milliseconds: sizes are checked, not every byte.

    Raises GalleryError when it is missing, of another schema, or its parts do not fit; `verify` finds single rows.
    """
    manifest = read_gallery_manifest(path)
    seen: State | None = None
    while True:
        with table_errors(path), ExitStack() as closes:
            database = open_snapshot(path, closes)
            check_manifest(path, database)
            state = read_state(database)
            files = DescriptorFiles(path, state.generation, manifest.descriptor_size, manifest.storage)
            try:
                mapped = files.map(state.slots)
            except FileNotFoundError as error:
                if seen == state:
                    raise GalleryError(
                        f"{error.filename} is missing. Copy the gallery again, or build it again."
                    ) from None
                # Compacted between the two looks: the next snapshot names the new files.
                seen = state
                continue
            if mapped.compressed is not None and not mapped.compressed.possible:
                raise GalleryError(
                    f"{path}: {files.paths[-1].name} is damaged. Write it again: {command('compact', path)}"
                )
            return FolderGallery(path, manifest, database, mapped, closes.pop_all())
