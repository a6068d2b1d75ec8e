"""A gallery: aerial references with their descriptors and positions, of one embedding space.

Types only: what may be asked of one wherever it is kept. How it is kept: gallery/folder and gallery/milvus.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy
from geodtr.runtime.geodesy import Near
from geodtr.runtime.names import Storage
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

Positions = tuple[NDArray[np.float64], NDArray[np.float64]]

_LONGEST = 1.01
"""A descriptor has length 1, or 0 where an image shows nothing; the rest is what a quantised engine may add."""


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

    A row is a number that tells a reference from the gallery's others. `lat`, `lon` and the iterators go through the
    references in one order, that of their rows.
    """

    @property
    def name(self) -> str:
        """Where it is, as its user called it."""
        ...

    @property
    def manifest(self) -> GalleryManifest: ...

    @property
    def info(self) -> GalleryInfo: ...

    def __len__(self) -> int: ...

    @property
    def lat(self) -> NDArray[np.float64]:
        """Latitude of every reference, degrees (WGS 84), float64 [N]; NaN where unknown."""
        ...

    @property
    def lon(self) -> NDArray[np.float64]:
        """Longitude of every reference, degrees (WGS 84), float64 [N]; NaN where unknown."""
        ...

    def tiles(self, rows: Iterable[int]) -> list[Tile]:
        """What is known of the references in `rows`, in their order. Raises IndexError when a row does not exist."""
        ...

    def all_tiles(self) -> Iterator[Tile]:
        """Every reference, a block of them in memory at a time."""
        ...

    def described(self) -> Iterator[tuple[list[Tile], Descriptors]]:
        """Every reference with its descriptor, float32 [M, D], by the block."""
        ...

    def search(self, queries: Descriptors, top: int, near: Near | None = None) -> Hits:
        """The `top` references with the largest cosine to each query, float32 [Q, D], best first; fewer where there are
        fewer.

        With `near`, only references within it are found, and those without a position never are. Raises GalleryError
        when queries have another type or size, or values that are not finite, when `near` is asked of a gallery that
        knows no position, or when what is found cannot be a cosine because the gallery is damaged; ValueError when
        `top` is less than 1.
        """
        ...

    def attached(self, name: str) -> bytes | None:
        """What was attached to the gallery under this name, a file's; None where nothing was."""
        ...

    def attach(self, name: str, content: bytes) -> str:
        """Keep a small text with the gallery, in place of an older one of this name; returns where it lies."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "Gallery": ...

    def __exit__(self, *_: object) -> None: ...


class PositionedRows(ABC):
    """What the readers share: `lat` and `lon`, read for the first caller. A search without a prior needs neither."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: Positions | None = None

    @abstractmethod
    def _read_positions(self) -> Positions:
        """Latitude and longitude of every reference, NaN where unknown. Called once, while `_lock` is held."""

    @property
    def lat(self) -> NDArray[np.float64]:
        return self._places()[0]

    @property
    def lon(self) -> NDArray[np.float64]:
        return self._places()[1]

    def _places(self) -> Positions:
        with self._lock:
            if self._positions is None:
                lat, lon = self._read_positions()
                self._positions = np.ascontiguousarray(lat), np.ascontiguousarray(lon)
            return self._positions


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compacting did: how many references there are, and how many removed ones' rows it freed."""

    references: int
    freed: int


class GalleryWriter(Protocol):
    """The right to change a gallery, held until `close`; each method's effect is kept when it returns."""

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
        """Those of `tiles` that the gallery does not hold yet.

        Raises GalleryError when it holds one's id with anything else said of it, DataError when a tile cannot be kept.
        """
        ...

    def add(self, tiles: Sequence[Tile], descriptors: Descriptors) -> None:
        """Append references with their descriptors, float32 [N, D], unit rows.

        Raises GalleryError when an id is taken, a row is not finite or too long, or the place takes no more; what the
        gallery held before is untouched. DataError when a tile cannot be kept, ValueError when the shapes do not fit.
        """
        ...

    def finish(self) -> None:
        """Say that the gallery is built."""
        ...

    def remove(self, patterns: Sequence[str]) -> int:
        """Remove the references with these ids, or whose id matches one of them as a glob (*, ?, [...]); how many.

        Raises GalleryError naming the first pattern that nothing matches; then nothing is removed.
        """
        ...

    def compact(self) -> Compacted:
        """Free the space of removed references. Raises GalleryError where that is not the gallery's to do."""
        ...

    def discard(self) -> None:
        """Remove the whole gallery, which holds no reference: an unfinished build that kept nothing leaves nothing."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> "GalleryWriter": ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in a gallery that is not as it was written: the reference's id, or None for a whole file; and what."""

    id: str | None
    what: str


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """How much an index finds: of the `top` nearest references of each of `queries` descriptors, the share `found`."""

    index: str
    top: int
    queries: int
    found: float


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found. `recall` is None where a search looks at every descriptor by construction."""

    faults: tuple[Fault, ...]
    recall: IndexRecall | None


def check_descriptors(tiles: Sequence[Tile], descriptors: Descriptors, size: int) -> None:
    """Raise ValueError when `descriptors` are not [N, size] for N tiles, GalleryError naming the first tile whose
    descriptor cannot be one.
    """
    if descriptors.shape != (len(tiles), size):
        raise ValueError(f"{len(tiles)} tiles come with descriptors {descriptors.shape}.")
    sound = can_be_descriptors(descriptors)
    if not sound.all():
        bad = tiles[int(np.argmin(sound))]
        raise GalleryError(f"The descriptor of tile {bad.id!r} is not finite or longer than 1: the model is broken.")


def can_be_descriptors(rows: Descriptors) -> NDArray[np.bool_]:
    """Which of `rows` [N, D] are finite and no longer than 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.linalg.norm(rows, axis=1) <= _LONGEST)


def check_queries(name: str, size: int, queries: Descriptors) -> None:
    """Raise GalleryError when `queries` are not float32 [Q, size], or not finite."""
    if queries.dtype != np.float32:
        raise GalleryError(
            f"{name} is searched by descriptors of float32; given are {queries.dtype}. Convert them: "
            "queries.astype(numpy.float32)"
        )
    if queries.ndim != 2 or queries.shape[1] != size:
        raise GalleryError(f"{name} is searched by descriptors [Q, {size}]; given are {queries.shape}.")
    if not np.isfinite(queries).all():
        raise GalleryError("A query's descriptor holds values that are not finite: the model is broken.")


def check_hits(name: str, queries: Descriptors, hits: Hits) -> None:
    """Raise GalleryError when what was found cannot be a cosine: a flipped bit that makes a value huge brings its row
    to the top of every answer.
    """
    if not (np.abs(hits.scores) <= _LONGEST * np.linalg.norm(queries, axis=1, keepdims=True)).all():
        raise GalleryError(
            f"{name} holds descriptors that are not of unit length: it was damaged. See which: "
            f"geodtr-export gallery verify {name}"
        )


def no_positions(name: str) -> GalleryError:
    """What is raised where a gallery without positions is searched near one."""
    return GalleryError(
        f"{name} knows no positions, so that it cannot be searched near one. Search without a prior, or build it from "
        "a source that gives coordinates."
    )
