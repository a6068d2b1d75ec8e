"""The one process that changes a gallery folder: adds and removes references, and compacts the files.

Descriptors are appended and synced first, then the references are committed in one transaction: a call that has
returned is on the disk, one that was cut short at any instant has not happened. What it left behind is dropped by the
next writer. Readers go on seeing what they opened.
"""

import errno
import os
import shlex
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import numpy as np

from geodtr.runtime.errors import ConfigError, GalleryError
from geodtr.runtime.files import locked, new_folder
from geodtr.runtime.gallery.base import Compacted, can_be_descriptors, check_descriptors
from geodtr.runtime.gallery.folder.table import (
    COLUMNS,
    State,
    create,
    open_for_writing,
    read_slots,
    read_state,
    readable,
    transaction,
)
from geodtr.runtime.gallery.folder.vectors import DescriptorFiles
from geodtr.runtime.gallery.manifest import GalleryManifest, read_gallery_manifest, write_gallery_manifest
from geodtr.runtime.gallery.row import as_row, checksum
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile, check_tiles
from geodtr.runtime.spec import Descriptors

_LOCK = "writer.lock"
_ROWS_AT_ONCE = 4096
_LITTLE = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FolderWriter:
    """A GalleryWriter of a folder; each method's effect is durable when it returns, or it has not happened."""

    def __init__(self, path: Path) -> None:
        """Take the right to write and clear away what an interrupted writer left.

        Raises GalleryError when `path` is no gallery, is damaged, cannot be written, or has a writer already.
        """
        self.path = path
        self.manifest = read_gallery_manifest(path)
        with ExitStack() as closes, readable(path), _refusals(path):
            _lock(path, closes)
            self._database = closes.enter_context(closing(open_for_writing(path)))
            with transaction(self._database):
                pass  # fails where the folder is read-only
            files, state = self._files(), self.state
            files.remove_others()
            files.cut(state.slots)
            self._closes = closes.pop_all()

    @staticmethod
    def create(path: Path, manifest: GalleryManifest) -> "FolderWriter":
        """Make an unfinished gallery without references and open it.

        Raises OutputExists when `path` holds anything, ConfigError when another index than the flat one is asked for.
        """
        if manifest.index != "flat":
            raise ConfigError(
                f"--index {manifest.index} is Milvus's: a folder is searched exactly. Leave the option out, or name a "
                "Milvus collection: --out milvus://HOST:PORT/COLLECTION"
            )
        with new_folder(path) as folder, _refusals(path, folder):
            write_gallery_manifest(folder, manifest)
            create(folder)
            DescriptorFiles(folder, 1, manifest.descriptor_size, manifest.storage).create()
            (folder / _LOCK).touch()
        return FolderWriter(path)

    def __enter__(self) -> "FolderWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the right to write back."""
        self._closes.close()

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM reference").fetchone()[0])

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def state(self) -> State:
        return read_state(self._database)

    @property
    def finished(self) -> bool:
        return self.state.finished

    def missing(self, tiles: Sequence[Tile]) -> list[Tile]:
        """Those of `tiles` that the gallery does not hold yet.

        Raises GalleryError when it holds one's id with anything else said of it, DataError when a tile cannot be kept.
        """
        check_tiles(str(self.path), tiles)
        missing = list[Tile]()
        for tile in tiles:
            with readable(self.path):
                held = self._database.execute(f"SELECT {COLUMNS} FROM reference WHERE id = ?", (tile.id,)).fetchone()
            if held is None:
                missing.append(tile)
            elif held != as_row(tile):
                raise GalleryError(
                    f"{self.path} holds a tile {tile.id!r} already, from {held[1]!r} at {held[2]}, {held[3]}; now it "
                    f"is {tile.file!r} at {tile.lat}, {tile.lon}. To replace it, remove the old one first: "
                    f"geodtr-export gallery remove {self.path} {tile.id!r}. To keep both, give the new ones ids of "
                    "their own: --id-prefix NAME/"
                )
        return missing

    def add(self, tiles: Sequence[Tile], descriptors: Descriptors) -> None:
        """Append references with their descriptors, float32 [N, D], unit rows: all of them or none.

        Raises GalleryError when an id is taken, a row is not finite or too long, or the disk is full; what the gallery
        held before is untouched. DataError when a tile cannot be kept, ValueError when the shapes do not fit.
        """
        check_tiles(str(self.path), tiles)
        check_descriptors(tiles, descriptors, self.manifest.descriptor_size)
        rows = [as_row(tile) for tile in tiles]
        with self._change() as state:
            for row in rows:
                if self._database.execute("SELECT 1 FROM reference WHERE id = ?", row[:1]).fetchone():
                    raise GalleryError(
                        f"{self.path} holds a tile {row[0]!r} already; ids must differ. To replace it, remove it first."
                    )
            files = self._files()
            files.write(state.slots, descriptors)
            files.sync()
            self._database.executemany(
                f"INSERT INTO reference (slot, {COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (slot, *row, checksum(row, descriptor))
                    for slot, (row, descriptor) in enumerate(zip(rows, descriptors, strict=True), state.slots)
                ),
            )
            self._database.execute("UPDATE state SET slots = ?", (state.slots + len(rows),))

    def finish(self) -> None:
        """Say that the gallery is built."""
        with self._change():
            self._database.execute("UPDATE state SET finished = 1")

    def remove(self, patterns: Sequence[str]) -> int:
        """Remove the references with these ids, or whose id matches one of them as a glob (*, ?, [...]); how many.

        Raises GalleryError naming the first pattern that nothing matches; then nothing is removed.
        """
        removed = 0
        with self._change():
            for pattern in patterns:
                found = self._database.execute("DELETE FROM reference WHERE id = ?", (pattern,)).rowcount
                # An id may hold the signs of a glob: it is an id first.
                found = found or self._database.execute("DELETE FROM reference WHERE id GLOB ?", (pattern,)).rowcount
                if not found:
                    raise GalleryError(
                        f"{self.path} holds no reference {pattern!r}; nothing was removed. See its ids: "
                        f"geodtr-export gallery export {self.path} --out ids.csv"
                    )
                removed += found
        return removed

    def compact(self) -> Compacted:
        """Write the descriptors anew without the rows of removed references, and compress them anew.

        The old files stay until the new ones are in use, so that the disk must hold both. Raises GalleryError naming
        the first reference whose descriptor cannot be one; then nothing is changed.
        """
        old = self._files()
        with self._change() as state:
            slots = read_slots(self._database)
            new = DescriptorFiles(self.path, state.generation + 1, self.manifest.descriptor_size, self.manifest.storage)
            new.create()
            exact = old.map(state.slots).exact
            for start in range(0, len(slots), _ROWS_AT_ONCE):
                part = slots[start : start + _ROWS_AT_ONCE]
                rows = exact[part]
                self._check_undamaged(part, rows)
                new.write(start, rows)
            new.sync()
            moved = ((row, int(slot)) for row, slot in enumerate(slots) if row != slot)
            # In rising order each new slot is free: it is the old one or was left by one before.
            self._database.executemany("UPDATE reference SET slot = ? WHERE slot = ?", moved)
            self._database.execute("DELETE FROM removed")
            self._database.execute("UPDATE state SET generation = ?, slots = ?", (new.generation, len(slots)))
        old.remove()
        with _refusals(self.path):
            self._database.execute("VACUUM")
        return Compacted(len(slots), state.slots - len(slots))

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _files(self) -> DescriptorFiles:
        return DescriptorFiles(self.path, self.state.generation, self.manifest.descriptor_size, self.manifest.storage)

    def _check_undamaged(self, slots: Rows, descriptors: Descriptors) -> None:
        """Raise GalleryError naming the first of the references in `slots` whose descriptor cannot be one."""
        sound = can_be_descriptors(descriptors)
        if not sound.all():
            slot = int(slots[np.argmin(sound)])
            (bad,) = self._database.execute("SELECT id FROM reference WHERE slot = ?", (slot,)).fetchone()
            raise GalleryError(
                f"{self.path}: the descriptor of tile {bad!r}, row {slot}, was damaged: it is not finite or longer "
                f"than 1. Nothing was changed. See all that is damaged: geodtr-export gallery verify {self.path}. "
                f"Remove it: geodtr-export gallery remove {self.path} {shlex.quote(bad)}. Then compact again."
            )

    @contextmanager
    def _change(self) -> Iterator[State]:
        """A transaction, with the state that it starts from; a failed one leaves no bytes behind it."""
        try:
            with readable(self.path), _refusals(self.path), transaction(self._database):
                yield self.state
        except BaseException:
            # Gives the space back at once; where it fails, the next writer does it.
            with suppress(OSError, GalleryError, sqlite3.Error):
                files = self._files()
                files.remove_others()
                files.cut(self.state.slots)
            raise


def _lock(path: Path, closes: ExitStack) -> None:
    """Hold the writer's lock until `closes` is closed; the system frees it when the process ends in any way."""
    file = path / _LOCK
    file.touch()
    lock = closes.enter_context(locked(file))
    if lock == "another's":
        holder = file.read_text(errors="replace")[:20] or "unknown"
        raise GalleryError(
            f"{path} is being written by another process (number {holder}). Wait until it is done, or stop it; it can "
            "be read meanwhile."
        )
    if lock == "none":
        raise GalleryError(f"{path} lies on a file system without locks, which cannot keep two writers apart. Move it.")
    with suppress(OSError):  # a full disk: the lock holds without the number that tells whose it is
        file.write_text(str(os.getpid()))


@contextmanager
def _refusals(path: Path, folder: Path | None = None) -> Iterator[None]:
    """Turn what the disk or its permissions refuse into a GalleryError; `folder`: where `path` is while it is made."""
    try:
        yield
    except FileNotFoundError as error:
        raise GalleryError(f"{error.filename} is missing. Copy the gallery again, or build it again.") from None
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _no_space(path) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _read_only(path) from None
        raise
    except sqlite3.OperationalError as error:
        # SQLite says in other words, too, that it could not enlarge a file.
        if "full" in str(error) or shutil.disk_usage(folder or path).free < _LITTLE:
            raise _no_space(path) from None
        if "disk I/O" in str(error):  # a limit on file sizes, among other causes
            raise _no_space(path) from None
        if "readonly" in str(error) or not os.access(folder or path, os.W_OK):
            raise _read_only(path) from None
        raise


def _no_space(path: Path) -> GalleryError:
    return GalleryError(
        f"No space is left on the disk of {path}, or ulimit -f allows no larger file. All that was acknowledged is "
        "kept. Free some, and repeat the command: it goes on from there."
    )


def _read_only(path: Path) -> GalleryError:
    return GalleryError(f"{path} cannot be written: it is read-only for you. Copy it to a place that you may write to.")
