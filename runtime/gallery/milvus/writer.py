"""Change a gallery in Milvus: add and remove references, and mark it as finished.

Milvus has no locks to exclude a second writer, and none is needed: the same tile added twice, by one process or by
several, is the same entity. A call that has returned is in the server's log; repeat an interrupted call to complete it.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec
import numpy as np

from geodtr.runtime.errors import ArgumentError, DataError, GalleryError, OutputExists
from geodtr.runtime.gallery.base import Compacted, check_descriptors
from geodtr.runtime.gallery.location import MilvusLocation, command
from geodtr.runtime.gallery.manifest import GalleryManifest
from geodtr.runtime.gallery.milvus.client import KEY, LONGEST_TEXT, Collection
from geodtr.runtime.gallery.milvus.connection import remove_file
from geodtr.runtime.gallery.milvus.schema import (
    CHECKSUM,
    FIELDS,
    FINISHED,
    MANIFEST,
    read_manifest,
    row_of,
    row_values,
)
from geodtr.runtime.gallery.row import ROW, Row, as_row, checksums
from geodtr.runtime.sources.tile import Tile, check_tiles
from geodtr.runtime.spec import Descriptors


def is_begun(place: MilvusLocation) -> bool:
    """Whether a gallery exists or was begun there. Raises OutputExists when the collection is no gallery."""
    if place.file is not None and not place.file.exists():
        return False
    collection = Collection(place, may_create=True)
    try:
        if not collection.exists():
            return False
        if MANIFEST not in collection.properties():
            raise OutputExists(
                f"{place} is a collection that geodtr-export did not make. Name another, or drop it yourself."
            )
        return True
    finally:
        collection.close()


class MilvusWriter:
    """A GalleryWriter for a Milvus collection; any number of processes may write at once."""

    def __init__(self, collection: Collection, manifest: GalleryManifest, finished: bool, *, new_file: bool) -> None:
        """For `open` and `create`. `new_file`: the file of Milvus Lite was made for this gallery."""
        self.manifest = manifest
        self._collection = collection
        self.finished = finished
        self._new_file = new_file
        self._written = False

    @staticmethod
    def open(place: MilvusLocation) -> "MilvusWriter":
        """Open a gallery for changing. Raises as open_milvus."""
        collection = Collection(place)
        try:
            manifest, finished = read_manifest(collection)
            collection.load()
        except BaseException:
            collection.close()
            raise
        return MilvusWriter(collection, manifest, finished, new_file=False)

    @staticmethod
    def create(place: MilvusLocation, manifest: GalleryManifest) -> "MilvusWriter":
        """Create an unfinished gallery without references. Raises ConfigError when its storage is not float32."""
        if manifest.storage != "float32":
            fault = f"is {manifest.storage}, which needs a folder: in Milvus descriptors are float32. Leave it out, or "
            raise ArgumentError("storage", f"{fault}name a folder.")
        new_file = place.file is not None and not place.file.exists()
        collection = Collection(place, may_create=True)
        text = msgspec.json.encode(manifest).decode()
        try:
            collection.create(FIELDS, manifest.descriptor_size, manifest.index, {MANIFEST: text, FINISHED: "false"})
            collection.load()
        except BaseException:
            collection.close()
            if new_file:
                remove_file(place)
            raise
        return MilvusWriter(collection, manifest, False, new_file=new_file)

    @property
    def name(self) -> str:
        return str(self._collection.place)

    def __enter__(self) -> "MilvusWriter":
        return self

    def __exit__(self, *raised: object) -> None:
        # Do not flush after a failure: the server may be gone, and all that it confirmed is in its log.
        self._written = self._written and not any(raised)
        self.close()

    def close(self) -> None:
        """Flush to persistent storage, and close the connection."""
        try:
            if self._written:
                self._written = False
                self._collection.flush()
        finally:
            self._collection.close()

    def __len__(self) -> int:
        return self._collection.count()

    def missing(self, tiles: Sequence[Tile]) -> list[Tile]:
        """As GalleryWriter.missing."""
        rows = self._check(tiles)
        held = self._collection.get([row_of(tile.id) for tile in tiles], ROW) if len(self) else {}
        missing = list[Tile]()
        for tile, row in zip(tiles, rows, strict=True):
            entity = held.get(row_of(tile.id))
            if entity is None:
                missing.append(tile)
            elif row_values(entity) != row:
                raise GalleryError(
                    f"{self.name} holds a tile {entity['id']!r} already, from {entity['file']!r} at {entity['lat']}, "
                    f"{entity['lon']}; now {tile.id!r} is {tile.file!r} at {tile.lat}, {tile.lon}. To replace it, "
                    f"remove the old one first: {command('remove', self.name, entity['id'])}"
                )
        return missing

    def add(self, tiles: Sequence[Tile], descriptors: Descriptors) -> None:
        """As GalleryWriter.add; what was stopped halfway may have added some of them."""
        rows = self._check(tiles)
        check_descriptors(tiles, descriptors, self.manifest.descriptor_size)
        if not tiles:
            return
        keys = [row_of(tile.id) for tile in tiles]
        if held := self._collection.get(keys, ()):
            tile = next(tile for tile, key in zip(tiles, keys, strict=True) if key in held)
            raise GalleryError(
                f"{self.name} holds a tile {tile.id!r} already; ids must differ. To replace it, remove it first."
            )
        entities = [
            {KEY: key, **dict(zip(ROW, row, strict=True)), CHECKSUM: checksum}
            for key, row, checksum in zip(keys, rows, checksums(rows, descriptors), strict=True)
        ]
        self._written = True
        self._collection.upsert(entities, np.ascontiguousarray(descriptors, np.float32))

    def finish(self) -> None:
        """Say that the gallery is built, once all of it is where it lasts."""
        self._collection.flush()
        self._written = False
        self._collection.put_properties({FINISHED: "true"})
        self.finished = True

    def remove(self, patterns: Sequence[str]) -> int:
        """As GalleryWriter.remove. A glob reads all ids."""
        names: dict[int, str] | None = None
        removed = set[int]()
        for pattern in patterns:
            # An id may contain glob characters, so the exact match comes first.
            rows = set(self._collection.get([row_of(pattern)], ["id"])) - removed
            if not rows:
                names = self._names() if names is None else names
                rows = {row for row, name in names.items() if fnmatchcase(name, pattern)} - removed
            if not rows:
                raise GalleryError(
                    f"{self.name} holds no reference {pattern!r}; nothing was removed. See its ids: "
                    f"{command('export', self.name, '--out', 'ids.csv')}"
                )
            removed |= rows
        self._written = True
        self._collection.delete(sorted(removed))
        return len(removed)

    def compact(self) -> Compacted:
        """Refused: it is the server's to do."""
        raise GalleryError(f"{self.name}: Milvus frees the space of removed tiles by itself; there is nothing to do.")

    def discard(self) -> None:
        """Drop the collection, and the file that was made for it."""
        self._written = False
        self._collection.drop()
        self._collection.close()
        if self._new_file:
            remove_file(self._collection.place)

    def _names(self) -> dict[int, str]:
        return {entity[KEY]: entity["id"] for block in self._collection.each(["id"], 4096) for entity in block}

    def _check(self, tiles: Sequence[Tile]) -> list[Row]:
        """The tiles' stored values. Raises DataError naming a tile that cannot be stored, or whose row number equals
        another's.
        """
        check_tiles(self.name, tiles)
        rows, keys = [as_row(tile) for tile in tiles], dict[int, str]()
        for tile, row in zip(tiles, rows, strict=True):
            other = keys.setdefault(row_of(tile.id), tile.id)
            if other != tile.id:
                raise DataError(f"Tiles {other!r} and {tile.id!r} share one row of Milvus. Rename one of them.")
            for name, text in zip(("id", "file", "more"), (row[0], row[1], row[-1]), strict=True):
                # A character is at most 4 bytes.
                if len(text) > LONGEST_TEXT // 4 and len(text.encode()) > LONGEST_TEXT:
                    raise DataError(
                        f"Tile {tile.id[:80]!r}: its {name} has {len(text.encode()):,} bytes, and Milvus keeps "
                        f"{LONGEST_TEXT:,}. Say less of it, or keep the gallery in a folder."
                    )
        return rows
