"""The only writer of a gallery folder: it adds and removes references, and compacts the files.

It appends and syncs descriptors first, then commits the references in one transaction: a call that has returned is on
the disk, an interrupted one has no effect. The next writer drops its leftovers. Readers keep the state they opened.

A writer verifies the gallery's state before it changes anything: FolderWriter._verify.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np

from geodtr.runtime.errors import ArgumentError, GalleryError
from geodtr.runtime.files import new_folder
from geodtr.runtime.gallery.base import Compacted, are_valid_descriptors, check_descriptors
from geodtr.runtime.gallery.folder.access import check_parts, lock, refusals
from geodtr.runtime.gallery.folder.opening import KEPT_LOG, LOCK, create, open_for_writing, table_errors, transaction
from geodtr.runtime.gallery.folder.table import (
    COLUMNS,
    FILE_NAME,
    PARAMETERS,
    State,
    complete_schema,
    has_checksums,
    read_removed,
    read_state,
    write_state,
)
from geodtr.runtime.gallery.folder.vectors import DescriptorFiles
from geodtr.runtime.gallery.location import command
from geodtr.runtime.gallery.manifest import FILE_NAME as MANIFEST
from geodtr.runtime.gallery.manifest import GalleryManifest, read_gallery_manifest, write_gallery_manifest
from geodtr.runtime.gallery.row import Row, as_row, checksums
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile, check_tiles
from geodtr.runtime.spec import Descriptors

_ROWS_AT_ONCE = 4096


class FolderWriter:
    """A GalleryWriter of a folder; each method's effect is durable when it returns, or it has not happened."""

    def __init__(self, path: Path) -> None:
        """Lock the folder for writing and remove the leftovers of an interrupted writer.

        Raises GalleryError when `path` is no gallery, is damaged, cannot be written, or has a writer already.
        """
        self.path = path
        self.manifest = read_gallery_manifest(path)
        with ExitStack() as closes, table_errors(path), refusals(path):
            lock(path, closes)
            self._database = closes.enter_context(closing(open_for_writing(path)))
            with transaction(self._database):  # fails where the folder is read-only
                self._verify()
            self._closes = closes.pop_all()

    @staticmethod
    def create(path: Path, manifest: GalleryManifest) -> "FolderWriter":
        """Create an unfinished gallery without references and open it.

        Raises OutputExists when `path` contains anything, ConfigError when the index is not flat.
        """
        if manifest.index != "flat":
            raise ArgumentError(
                "index",
                f"is {manifest.index}, which needs Milvus: a folder is searched exactly. Leave it out, or name a "
                "collection of Milvus: milvus://HOST:PORT/COLLECTION",
            )
        with new_folder(path) as folder, refusals(path, folder):
            write_gallery_manifest(folder, manifest)
            create(folder)
            DescriptorFiles(folder, 1, manifest.descriptor_size, manifest.storage).create()
        return FolderWriter(path)

    def __enter__(self) -> "FolderWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unlock the folder."""
        self._closes.close()

    def __len__(self) -> int:
        with table_errors(self.path):
            return int(self._database.execute("SELECT count(*) FROM reference").fetchone()[0])

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def state(self) -> State:
        with table_errors(self.path):
            return read_state(self._database)

    @property
    def finished(self) -> bool:
        return self.state.finished

    def missing(self, tiles: Sequence[Tile]) -> list[Tile]:
        """As GalleryWriter.missing."""
        check_tiles(str(self.path), tiles)
        missing = list[Tile]()
        for tile, held in self._held(tiles):
            if held is None:
                missing.append(tile)
            elif held != as_row(tile):
                raise GalleryError(
                    f"{self.path} holds a tile {tile.id!r} already, from {held[1]!r} at {held[2]}, {held[3]}; now it "
                    f"is {tile.file!r} at {tile.lat}, {tile.lon}. To replace it, remove the old one first: "
                    f"{command('remove', self.path, tile.id)}. To keep both, give the new ones ids of their own: "
                    "--id-prefix NAME/"
                )
        return missing

    def first_held(self, tiles: Sequence[Tile]) -> str | None:
        """The id of the first of `tiles` whose id the gallery holds; None where it holds none."""
        return next((tile.id for tile, held in self._held(tiles) if held is not None), None)

    def add(self, tiles: Sequence[Tile], descriptors: Descriptors) -> None:
        """As GalleryWriter.add: all of them or none."""
        check_tiles(str(self.path), tiles)
        check_descriptors(tiles, descriptors, self.manifest.descriptor_size)
        rows = [as_row(tile) for tile in tiles]
        with self._change() as state:
            held = self.first_held(tiles)
            if held is not None:
                raise GalleryError(
                    f"{self.path} holds a tile {held!r} already; ids must differ. To replace it, remove it first."
                )
            files = self._files(state)
            files.check(state.slots)
            try:
                files.write(state.slots, descriptors)
                files.sync()
                self._database.executemany(
                    f"INSERT INTO reference (slot, {COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        (slot, *row, checksum)
                        for slot, (row, checksum) in enumerate(
                            zip(rows, checksums(rows, descriptors), strict=True), state.slots
                        )
                    ),
                )
                write_state(self._database, state._replace(slots=state.slots + len(rows)))
            except BaseException:
                with suppress(OSError, GalleryError):
                    files.cut(state.slots)  # gives the space of a full disk back
                raise

    def finish(self) -> None:
        """Mark the gallery as finished."""
        with self._change() as state:
            write_state(self._database, state._replace(finished=True))

    def remove(self, patterns: Sequence[str]) -> int:
        """As GalleryWriter.remove."""
        removed = 0
        with self._change():
            for pattern in patterns:
                count = self._database.execute("DELETE FROM reference WHERE id = ?", (pattern,)).rowcount
                # An id may contain glob characters, so the exact match comes first.
                count = count or self._database.execute("DELETE FROM reference WHERE id GLOB ?", (pattern,)).rowcount
                if not count:
                    raise GalleryError(
                        f"{self.path} holds no reference {pattern!r}; nothing was removed. See its ids: "
                        f"{command('export', self.path, '--out', 'ids.csv')}"
                    )
                removed += count
        return removed

    def compact(self) -> Compacted:
        """Rewrite and recompress the descriptors without the rows of removed references.

        The old files stay until the new ones are in use, so the disk needs space for both. Raises GalleryError naming
        the first reference with an invalid descriptor; then nothing changes.
        """
        with self._change() as state:
            slots = np.delete(np.arange(state.slots), read_removed(self._database))
            old, new = self._files(state), self._files(state._replace(generation=state.generation + 1))
            old.remove_leftovers()
            new.create()
            try:
                exact = old.map(state.slots).exact
                for start in range(0, len(slots), _ROWS_AT_ONCE):
                    part = slots[start : start + _ROWS_AT_ONCE]
                    rows = exact[part]
                    self._check_undamaged(part, rows)
                    new.write(start, rows)
                new.sync()
                moved = ((row, int(slot)) for row, slot in enumerate(slots) if row != slot)
                # In rising order each new slot is free: it is the same, or an earlier reference has left it.
                self._database.executemany("UPDATE reference SET slot = ? WHERE slot = ?", moved)
                self._database.execute("DELETE FROM removed")
                write_state(self._database, state._replace(generation=new.generation, slots=len(slots)))
            except BaseException:
                with suppress(OSError):
                    new.remove()
                raise
        old.remove()
        with refusals(self.path):
            self._database.execute("VACUUM")
        return Compacted(len(slots), state.slots - len(slots))

    def discard(self) -> None:
        """Remove the gallery, and its folder unless something else is in it."""
        self._files(self.state).remove()
        for name in (MANIFEST, LOCK, *(f"{FILE_NAME}{suffix}" for suffix in ("", "-wal", "-shm"))):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def _verify(self) -> None:
        """Compare all that a writer goes by with what was written: check_parts.

        Then what an interrupted compaction left is known by its generation, and is removed. By the state of an earlier
        version, which has no checksum, nothing is deleted: it is moved aside. So are descriptors whose references may
        be in a log that was damaged.
        """
        files = check_parts(self.path, self._database, self.manifest)
        if any(self.path.glob(f"{KEPT_LOG}*")):
            files.set_rest_aside(self.state.slots)
        if has_checksums(self._database):
            files.remove_leftovers()
        else:
            files.set_leftovers_aside()
        complete_schema(self.path, self._database)

    def _held(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Row | None]]:
        """Each of `tiles` with what the table holds under its id."""
        for start in range(0, len(tiles), PARAMETERS):
            block = list(tiles[start : start + PARAMETERS])
            query = f"SELECT {COLUMNS} FROM reference WHERE id IN ({', '.join('?' * len(block))})"
            with table_errors(self.path):
                held = {row[0]: row for row in self._database.execute(query, [tile.id for tile in block])}
            yield from ((tile, held.get(tile.id)) for tile in block)

    def _files(self, state: State) -> DescriptorFiles:
        return DescriptorFiles(self.path, state.generation, self.manifest.descriptor_size, self.manifest.storage)

    def _check_undamaged(self, slots: Rows, descriptors: Descriptors) -> None:
        """Raise GalleryError naming the first of the references in `slots` with an invalid descriptor."""
        valid = are_valid_descriptors(descriptors)
        if not valid.all():
            slot = int(slots[np.argmin(valid)])
            (bad,) = self._database.execute("SELECT id FROM reference WHERE slot = ?", (slot,)).fetchone()
            raise GalleryError(
                f"{self.path}: the descriptor of tile {bad!r}, row {slot}, was damaged: it is not finite or longer "
                f"than 1. Nothing was changed. See all that is damaged: {command('verify', self.path)}. "
                f"Remove it: {command('remove', self.path, bad)}. Then compact again."
            )

    @contextmanager
    def _change(self) -> Iterator[State]:
        """A transaction with its initial state."""
        with table_errors(self.path), refusals(self.path), transaction(self._database):
            yield self.state
