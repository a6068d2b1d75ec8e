"""A gallery: aerial references with their descriptors and positions, of one embedding space.

Types only: the interface that every kind of gallery implements. The kinds: gallery/folder and gallery/milvus.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.arguments import check_argument
from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.location import command
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy
from geodtr.runtime.geodesy import Near
from geodtr.runtime.names import Storage
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

_Reader = TypeVar("_Reader", bound="PositionedRows")
Positions = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]

_LONGEST = 1.01
"""A descriptor has length 1, or 0 for an empty image; quantised engines exceed 1 by less than this."""


class GalleryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A gallery in figures. `positioned`: references with a position. `removed`: rows that compacting would free.

    `finished` is false while it is being built. `index` is how it is searched and who does it; `searched_bytes` is what
    every search reads at most, `bytes` what the descriptors take together. None where it is Milvus's to know.
    """

    references: int
    positioned: int
    removed: int | None
    finished: bool
    descriptor_size: int
    storage: Storage
    index: str
    searched_bytes: int
    bytes: int | None
    source: str
    made_by: MadeBy


class Gallery(Protocol):
    """A gallery opened for reading; safe to use from several threads.

    A row is a number that identifies a reference within the gallery. `lat`, `lon` and the iterators return the
    references in the order of their rows. After `close`, what was read stays usable, and everything else but the name
    and the manifest raises GalleryError.
    """

    @property
    def name(self) -> str:
        """Its location, as the user named it."""
        ...

    @property
    def manifest(self) -> GalleryManifest: ...

    @property
    def info(self) -> GalleryInfo: ...

    def __len__(self) -> int: ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of every reference, rising, int64 [N]; in Milvus they are not successive."""
        ...

    @property
    def lat(self) -> NDArray[np.float64]:
        """Latitude of every reference, degrees (WGS 84), float64 [N]; NaN where unknown."""
        ...

    @property
    def lon(self) -> NDArray[np.float64]:
        """Longitude of every reference, degrees (WGS 84), float64 [N]; NaN where unknown."""
        ...

    def tiles(self, rows: Iterable[int]) -> list[Tile]:
        """The references in `rows`, in their order. Raises IndexError when a row does not exist."""
        ...

    def all_tiles(self) -> Iterator[Tile]:
        """Every reference, with one block at a time in memory."""
        ...

    def described(self) -> Iterator[tuple[list[Tile], Descriptors]]:
        """Every reference with its descriptor, float32 [M, D], in blocks."""
        ...

    def search(
        self, queries: Descriptors, top: int, near: Near | None = None, rows: NDArray[np.int64] | None = None
    ) -> Hits:
        """The `top` references with the largest cosine to each query, float32 [Q, D], best first; fewer where there are
        fewer.

        With `near`, only references within it are found, and never one without a position; with `rows`, rising, only
        these. Raises GalleryError when queries have another type or size, or values that are not finite, when `near` is
        given and the gallery knows no position, or when a score cannot be a cosine because the gallery is damaged;
        ConfigError when `top` is less than 1.
        """
        ...

    def attached(self, name: str) -> bytes | None:
        """The content attached under this file name; None if there is none."""
        ...

    def attach(self, name: str, content: bytes) -> str:
        """Store a small text with the gallery, replacing one of the same name; returns its location."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "Gallery": ...

    def __exit__(self, *_: object) -> None: ...


class PositionedRows(ABC):
    """What the readers share: `rows`, `lat` and `lon`, read for the first caller; most searches need none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: Positions | None = None

    @abstractmethod
    def _read_positions(self) -> Positions:
        """Row, latitude and longitude of every reference, NaN where unknown. Called once, while `_lock` is held."""

    @abstractmethod
    def _check_open(self) -> None:
        """Raise GalleryError after `close`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    def __enter__(self: "_Reader") -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rows(self) -> NDArray[np.int64]:
        return self._places()[0]

    @property
    def lat(self) -> NDArray[np.float64]:
        return self._places()[1]

    @property
    def lon(self) -> NDArray[np.float64]:
        return self._places()[2]

    def _places(self) -> Positions:
        self._check_open()
        with self._lock:
            if self._positions is None:
                rows, lat, lon = self._read_positions()
                self._positions = rows, np.ascontiguousarray(lat), np.ascontiguousarray(lon)
            return self._positions


@dataclass(frozen=True, slots=True)
class Compacted:
    """The result of compacting: the number of references, and of freed rows of removed references."""

    references: int
    freed: int


class GalleryWriter(Protocol):
    """The exclusive right to change a gallery, held until `close`; each method's effect is stored when it returns."""

    @property
    def name(self) -> str: ...

    @property
    def manifest(self) -> GalleryManifest: ...

    @property
    def finished(self) -> bool:
        """False while the gallery is being built."""
        ...

    def __len__(self) -> int: ...

    def missing(self, tiles: Sequence[Tile]) -> list[Tile]:
        """The `tiles` that the gallery does not contain yet.

        Raises GalleryError when it contains a tile with the same id and other values, DataError when a tile cannot be
        stored.
        """
        ...

    def add(self, tiles: Sequence[Tile], descriptors: Descriptors) -> None:
        """Append references with their descriptors, float32 [N, D], unit rows.

        Raises GalleryError when an id is taken, a row is not finite or too long, or the storage is full; the gallery
        then stays unchanged. DataError when a tile cannot be stored, ValueError when the shapes do not fit.
        """
        ...

    def finish(self) -> None:
        """Mark the gallery as finished."""
        ...

    def remove(self, patterns: Sequence[str]) -> int:
        """Remove the references whose id equals or matches one of these globs (*, ?, [...]); returns their number.

        Raises GalleryError naming the first pattern without a match; then nothing is removed.
        """
        ...

    def compact(self) -> Compacted:
        """Free the space of removed references. Raises GalleryError if the gallery cannot do that."""
        ...

    def discard(self) -> None:
        """Remove the whole gallery, which must be empty: an interrupted build without a reference leaves nothing."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "GalleryWriter": ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """A damaged part of a gallery: the reference's id, or None for a whole file, and a description."""

    id: str | None
    what: str


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """Recall of an index: the share `found` of the `top` nearest references of each of `queries` descriptors."""

    index: str
    top: int
    queries: int
    found: float


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verification. `recall` is None if the search is exact by construction."""

    faults: tuple[Fault, ...]
    recall: IndexRecall | None


def check_descriptors(tiles: Sequence[Tile], descriptors: Descriptors, size: int) -> None:
    """Raise ValueError when `descriptors` are not [N, size] for N tiles, GalleryError naming the first tile with
    an invalid descriptor.
    """
    if descriptors.shape != (len(tiles), size):
        raise ValueError(f"{len(tiles)} tiles come with descriptors {descriptors.shape}.")
    valid = are_valid_descriptors(descriptors)
    if not valid.all():
        bad = tiles[int(np.argmin(valid))]
        raise GalleryError(f"The descriptor of tile {bad.id!r} is not finite or longer than 1: the model is broken.")


def are_valid_descriptors(rows: Descriptors) -> NDArray[np.bool_]:
    """Mask [N] of the `rows` [N, D] that are finite and not longer than 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.linalg.norm(rows, axis=1) <= _LONGEST)


def check_search(name: str, size: int, queries: Descriptors, top: int, near: Near | None) -> None:
    """Raise GalleryError when `queries` are not float32 [Q, size], or not finite; ConfigError when `top` or `near` is
    none.
    """
    check_argument("top", top, int, 1)
    check_argument("near", near, Near | None)
    check_argument("queries", queries, np.ndarray)
    if queries.dtype != np.float32:
        raise GalleryError(
            f"{name} takes descriptors of float32; given are {queries.dtype}. Convert them: "
            "queries.astype(numpy.float32)"
        )
    if queries.ndim != 2 or queries.shape[1] != size:
        raise GalleryError(f"{name} takes descriptors [Q, {size}]; given are {queries.shape}.")
    if not np.isfinite(queries).all():
        raise GalleryError("A query's descriptor holds values that are not finite: the model is broken.")


def check_hits(name: str, queries: Descriptors, hits: Hits) -> None:
    """Raise GalleryError when a score cannot be a cosine: a flipped bit that makes a value huge moves its row to the
    top of every result.
    """
    if not (np.abs(hits.scores) <= _LONGEST * np.linalg.norm(queries, axis=1, keepdims=True)).all():
        raise GalleryError(
            f"{name} holds descriptors that are not of unit length: it was damaged. See which: "
            f"{command('verify', name)}"
        )


def no_positions(name: str) -> GalleryError:
    """The error for a search near a position in a gallery without positions."""
    return GalleryError(
        f"{name} knows no positions, so that it cannot be searched near one. Search without a prior, or build it from "
        "a source with coordinates."
    )
