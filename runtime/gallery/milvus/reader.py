"""A gallery in a collection of Milvus, opened for reading: for maps beyond one machine, or shared by many.

A folder's reader keeps the state that it opened. This one also sees later changes by other processes, within seconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.base import GalleryInfo, PositionedRows, Positions, check_hits, check_search, no_positions
from geodtr.runtime.gallery.location import MilvusLocation, closed
from geodtr.runtime.gallery.manifest import GalleryManifest
from geodtr.runtime.gallery.milvus.client import KEY, LISTED, MOST_HITS, VECTOR, Collection, Entity, Found, block_of
from geodtr.runtime.gallery.milvus.schema import ATTACHED, CHECKSUM, read_manifest, row_values, vectors_of
from geodtr.runtime.gallery.row import ROW, as_tile
from geodtr.runtime.geodesy import Near
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

_TILES = 4096
_REMEMBERED = 1 << 16
"""Found references kept in memory for a later call of `tiles`, about 20 MB; more if one search finds more."""


def open_milvus(place: MilvusLocation) -> "MilvusGallery":
    """Connect to a gallery in Milvus.

    Raises GalleryError when it does not exist or no server answers, MissingDependency without pymilvus.
    """
    collection = Collection(place)
    try:
        manifest, finished = read_manifest(collection)
        collection.load()
        return MilvusGallery(collection, manifest, finished)
    except BaseException:
        collection.close()
        raise


class MilvusGallery(PositionedRows):
    """A Gallery in a Milvus collection. A reference keeps its row until it is removed."""

    def __init__(self, collection: Collection, manifest: GalleryManifest, finished: bool) -> None:
        """For `open_milvus`."""
        super().__init__()
        self.manifest = manifest
        self._collection = collection
        self._finished = finished
        self.index = collection.index()
        """Milvus's name of it: FLAT compares every descriptor."""
        # A strongly consistent count: the server answers after it has applied all confirmed changes.
        self._count = collection.count()
        self._positioned: int | None = None
        self._found = dict[int, Entity]()

    @property
    def name(self) -> str:
        return str(self._collection.place)

    def __len__(self) -> int:
        self._check_open()
        return self._count

    def _check_open(self) -> None:
        if self._collection.closed:
            raise closed(self.name)

    def close(self) -> None:
        """Close the connection."""
        self._collection.close()

    @property
    def info(self) -> GalleryInfo:
        """The gallery in figures; None where only Milvus knows them."""
        return GalleryInfo(
            references=len(self),
            positioned=self._known(),
            removed=None,
            finished=self._finished,
            descriptor_size=self.manifest.descriptor_size,
            storage=self.manifest.storage,
            index=f"{self.index} of {self._collection.version}",
            searched_bytes=4 * len(self) * self.manifest.descriptor_size,
            bytes=None,
            source=self.manifest.source,
            made_by=self.manifest.made_by,
        )

    def tiles(self, rows: Iterable[int]) -> list[Tile]:
        """The references in `rows`, in their order. Raises IndexError when a row does not exist.

        Rows of recent hits are still returned after another process removed them.
        """
        self._check_open()
        rows = list(rows)
        with self._lock:
            held = {row: self._found[row] for row in rows if row in self._found}
        if others := [row for row in rows if row not in held]:
            held |= self._collection.get(others, ROW)
        for row in rows:
            if row not in held:
                raise IndexError(f"{self.name} has no row {row}; it may have been removed since it was found.")
        return [as_tile(row_values(held[row])) for row in rows]

    def all_tiles(self) -> Iterator[Tile]:
        """Every reference in the order of the rows, with one block at a time in memory."""
        for block in self._collection.each(ROW, _TILES):
            yield from (as_tile(row_values(entity)) for entity in block)

    def described(self) -> Iterator[tuple[list[Tile], Descriptors]]:
        """Every reference in the order of the rows with its descriptor, float32 [M, D], in blocks."""
        for block in self._collection.each((*ROW, VECTOR), block_of(self.manifest.descriptor_size)):
            yield [as_tile(row_values(entity)) for entity in block], vectors_of(block)

    def entities(self) -> Iterator[list[Entity]]:
        """Every reference as a Milvus entity, in blocks."""
        return self._collection.each((*ROW, CHECKSUM, VECTOR), block_of(self.manifest.descriptor_size))

    def search(
        self, queries: Descriptors, top: int, near: Near | None = None, rows: NDArray[np.int64] | None = None
    ) -> Hits:
        """As Gallery.search. With an index other than FLAT some of the nearest may be missing and hits may be fewer,
        as also for some seconds after another process removed near references.

        Raises GalleryError also when `top` exceeds Milvus's limit.
        """
        self._check_open()
        check_search(self.name, self.manifest.descriptor_size, queries, top, near)
        if top > MOST_HITS:
            raise GalleryError(
                f"{self.name}: top is {top:,}, and Milvus returns {MOST_HITS:,} hits at most. Ask for fewer, or "
                "keep the gallery in a folder."
            )
        if not len(queries) or not len(self) or (rows is not None and not len(rows)):
            return Hits(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32))
        if near is None and rows is None:
            results = self._collection.search(queries, top, self.index, "", ())
        else:
            results = self._nearest_of(queries, top, near, rows)
        held = self._remember({key for one in results for key in one.keys})
        # Milvus may have searched the state of some seconds ago.
        results = [_only(one, [index for index, key in enumerate(one.keys) if key in held]) for one in results]
        # An index that is not exact may find more for one query than for another.
        kept = min(len(one.keys) for one in results)
        hits = Hits(
            np.array([one.keys[:kept] for one in results], np.int64).reshape(len(results), kept),
            np.array([one.scores[:kept] for one in results], np.float32).reshape(len(results), kept),
        )
        check_hits(self.name, queries, hits)
        return hits

    def attached(self, name: str) -> bytes | None:
        """The value of the collection's property of this name."""
        text = self._collection.properties().get(ATTACHED + name)
        return None if text is None else text.encode()

    def attach(self, name: str, content: bytes) -> str:
        """Store it in a property of the collection."""
        self._collection.put_properties({ATTACHED + name: content.decode()})
        return f"{self.name}, property {ATTACHED + name}"

    def _nearest_of(
        self, queries: Descriptors, top: int, near: Near | None, rows: NDArray[np.int64] | None
    ) -> list[Found]:
        if near is not None and not self._known():
            raise no_positions(self.name)
        if rows is None or len(rows) > LISTED:
            results, enough = self._within(queries, top, near, rows, "")
            if enough:
                return results
        # Too few of the rows are among as many hits as Milvus returns.
        if rows is None:
            assert near is not None
            rows, lat, lon = self._places()
            rows = rows[near.holds(lat, lon)]
        lists = [rows[start : start + LISTED].tolist() for start in range(0, len(rows), LISTED)]
        parts = [self._within(queries, top, near, None, f"{KEY} in {part}")[0] for part in lists]
        return [_best([part[query] for part in parts], top) for query in range(len(queries))]

    def _within(
        self, queries: Descriptors, top: int, near: Near | None, rows: NDArray[np.int64] | None, where: str
    ) -> tuple[list[Found], bool]:
        """The hits within `near`, among many `rows`, that pass the filter `where`; and whether each query has enough.

        Milvus filters neither by distance nor by a list of many rows: it searches a box, and this method drops the
        other hits. If too few are left, it requests more, until each query has enough, all references in the box were
        returned, or Milvus returns no more: a graph may find more for one query than for another if the box holds few
        of many.
        """
        fields: tuple[str, ...] = ()
        if near is not None:
            where, fields = " and ".join(filter(None, (where, _in_box(near)))), ("lat", "lon")
        limit = top
        while True:
            # A circle fills 0.785 of its box: with half as many again the first call is mostly the last.
            limit = min(MOST_HITS, limit + limit // 2 + 8)
            results = self._collection.search(queries, limit, self.index, where, fields)
            within = [_among(_held(one, near), rows) for one in results]
            most = max(len(one.keys) for one in results)
            short = any(
                len(kept.keys) < top and (len(one.keys) == limit or len(one.keys) < most)
                for one, kept in zip(results, within, strict=True)
            )
            if not short or limit == MOST_HITS:
                return [_only(one, range(min(top, len(one.keys)))) for one in within], not short
            limit *= 4

    def _remember(self, rows: set[int]) -> dict[int, Entity]:
        """The existing `rows` that a search found, also kept for a later call of `tiles`, so that their removal in
        between does no harm.
        """
        entities = self._collection.get(sorted(rows), ROW, "Bounded")
        with self._lock:
            forgets = len(self._found) + len(entities) > _REMEMBERED
            self._found = entities if forgets else self._found | entities
        return entities

    def _known(self) -> int:
        """The number of references with a position."""
        with self._lock:
            if self._positioned is None:
                self._positioned = self._collection.count("lat >= -90")
            return self._positioned

    def _read_positions(self) -> Positions:
        blocks = self._collection.each(("lat", "lon"), MOST_HITS)
        held = [(entity[KEY], entity["lat"], entity["lon"]) for block in blocks for entity in block]
        rows, lat, lon = zip(*held, strict=True) if held else ((), (), ())
        return np.array(rows, np.int64), np.array(lat, np.float64), np.array(lon, np.float64)


def _in_box(near: Near) -> str:
    box = near.box
    between = "and" if box.west <= box.east else "or"
    return f"lat >= {box.south!r} and lat <= {box.north!r} and (lon >= {box.west!r} {between} lon <= {box.east!r})"


def _held(found: Found, near: Near | None) -> Found:
    if near is None:
        return found
    lat, lon = (np.array([entity[name] for entity in found.entities], np.float64) for name in ("lat", "lon"))
    return _only(found, np.flatnonzero(near.holds(lat, lon)).tolist())


def _among(found: Found, rows: NDArray[np.int64] | None) -> Found:
    """The hits whose rows are among `rows`, rising."""
    if rows is None:
        return found
    keys = np.array(found.keys, np.int64)
    at = np.minimum(np.searchsorted(rows, keys), len(rows) - 1)
    return _only(found, np.flatnonzero(rows[at] == keys).tolist())


def _best(parts: Sequence[Found], top: int) -> Found:
    """The `top` best hits of all parts."""
    hits = [hit for part in parts for hit in zip(part.keys, part.scores, part.entities, strict=True)]
    hits = sorted(hits, key=lambda hit: -hit[1])[:top]
    return Found([key for key, _, _ in hits], [score for _, score, _ in hits], [entity for _, _, entity in hits])


def _only(found: Found, kept: Sequence[int]) -> Found:
    """The hits with these indices."""

    def of(values: Sequence[Any]) -> list[Any]:
        return [values[index] for index in kept]

    return Found(of(found.keys), of(found.scores), of(found.entities))
