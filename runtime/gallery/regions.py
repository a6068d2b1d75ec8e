"""Galleries split by region, and merged: the rows are copied as they are, into new folders that are whole or not there.

A calibration belongs to the places of one gallery, so that none is copied. Knows galleries; embeds nothing.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ConfigError, EmbeddingSpaceMismatch, GalleryError
from geodtr.runtime.files import check_apart, check_new_folder, new_folder
from geodtr.runtime.gallery.folder.access import NoSpace
from geodtr.runtime.gallery.folder.reader import FolderGallery, open_folder
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.gallery.location import command
from geodtr.runtime.gallery.manifest import GalleryManifest
from geodtr.runtime.geodesy import metres_per_degree
from geodtr.runtime.names import Storage
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile

UNPLACED = "unplaced"
"""The part with the tiles whose position is not known."""
MOST_PARTS = 10_000
_BLOCK = 4096
_NAMED = 5
"""Of so many merged galleries, the new one records the names."""

Places = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Names, and the index of each place's own in them, [N]."""

    names: Sequence[str]
    of: NDArray[np.int64]


Region = Callable[[Places, Places], Parts]
"""The parts of places, lat and lon in degrees [N]."""


@dataclass(frozen=True, slots=True)
class InBox:
    """Two parts: `inside` the box, edges included, and `outside`. Degrees; `west` above `east` spans the 180th
    meridian. Raises ConfigError where it is none.
    """

    south: float
    west: float
    north: float
    east: float

    def __post_init__(self) -> None:
        if not (-90 <= self.south < self.north <= 90 and all(abs(lon) <= 180 for lon in (self.west, self.east))):
            raise ConfigError(
                f"A box of {self.south:g},{self.west:g},{self.north:g},{self.east:g} is none: needed are south, west, "
                "north and east in degrees, south below north."
            )

    def __call__(self, lat: Places, lon: Places) -> Parts:
        across = (lon >= self.west) & (lon <= self.east)
        if self.west > self.east:
            across = (lon >= self.west) | (lon <= self.east)
        inside = across & (lat >= self.south) & (lat <= self.north)
        return Parts(("outside", "inside"), inside.astype(np.int64))


@dataclass(frozen=True, slots=True)
class InGrid:
    """A part for each cell of a grid over the Earth, at most about `metres` a side, named by its south-western corner.
    The grid is the same for every gallery. Raises ConfigError for a side that no grid has.
    """

    metres: float

    def __post_init__(self) -> None:
        if not (isfinite(self.metres) and 10 <= self.metres <= 1_000_000):
            raise ConfigError(f"A grid of {self.metres:g} m is none: allowed are sides of 10 to 1,000,000 metres.")

    def __call__(self, lat: Places, lon: Places) -> Parts:
        metres = float(metres_per_degree(0.0)[0])
        rows = ceil(180 * metres / self.metres)
        row = np.minimum((lat + 90) / 180 * rows, rows - 1).astype(np.int64)
        south, north = (180 / rows * (row + edge) - 90 for edge in (0, 1))
        # The row is widest where it is nearest to the equator.
        nearest = np.where(south * north <= 0, 0.0, np.minimum(abs(south), abs(north)))
        columns = np.maximum(1, np.ceil(360 * metres * np.cos(np.radians(nearest)) / self.metres))
        column = np.floor((lon + 180) / 360 * columns) % columns
        corners = np.stack([np.round(south, 4), np.round(column * 360 / columns - 180, 4)], axis=1)
        unique, of = np.unique(corners, axis=0, return_inverse=True)
        return Parts([_corner(*each) for each in unique.tolist()], of.reshape(-1))


def _corner(south: float, west: float) -> str:
    return f"{'N' if south >= 0 else 'S'}{abs(south):07.4f}{'E' if west >= 0 else 'W'}{abs(west):08.4f}"


def split(gallery: Path, out: Path, region: Region, *, track: Track = untracked) -> Mapping[str, int]:
    """Copy every tile of a gallery into one of several galleries, the folders `out`/NAME; the number of tiles by name.

    The gallery stays as it is. Tiles without a position are in `unplaced`. Raises OutputExists, GalleryError where the
    gallery is damaged, unfinished or empty, ConfigError for more than MOST_PARTS parts.
    """
    check_apart(out, gallery)
    check_new_folder(out)
    with open_undamaged(gallery, track) as opened:
        parts = _parts(opened, region)
        if not len(opened):
            raise GalleryError(f"{gallery} is empty: nothing can be split.")
        counts = np.bincount(parts.of, minlength=len(parts.names))
        if np.count_nonzero(counts) > MOST_PARTS:
            raise ConfigError(
                f"{gallery} would have {np.count_nonzero(counts):,} parts; at most {MOST_PARTS:,}. Use larger cells."
            )
        order = np.argsort(parts.of, kind="stable")
        with _new_folder(out) as folder:
            each_part = zip(parts.names, np.split(order, np.cumsum(counts)[:-1]), strict=True)
            filled = {name: rows for name, rows in each_part if len(rows)}
            for name in track(filled, "Splitting", len(filled)):
                manifest = _manifest(opened.manifest, f"{opened.name}, part {name}", opened.manifest.storage)
                with FolderWriter.create(folder / name, manifest) as writer:
                    _copy(opened, filled[name], writer)
    return {name: len(rows) for name, rows in filled.items()}


def merge(
    galleries: Sequence[Path],
    out: Path,
    *,
    storage: Storage | None = None,
    track: Track = untracked,
) -> int:
    """Copy the tiles of several galleries of one embedding space, in order, into the new folder `out`; their number.

    `storage` None: the first gallery's. The galleries stay as they are. Raises OutputExists, EmbeddingSpaceMismatch,
    GalleryError where a gallery is damaged or unfinished, or two hold a tile of the same id, which it names.
    """
    check_apart(out, *galleries)
    twice = next((each for number, each in enumerate(galleries) if each in galleries[:number]), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice. Name each gallery once.")
    check_new_folder(out)
    with ExitStack() as closes:
        each_verified = track(galleries, "Verifying", len(galleries))
        opened = [closes.enter_context(open_undamaged(each, untracked)) for each in each_verified]
        first = opened[0].manifest
        for each in opened[1:]:
            if (each.manifest.made_by.embedding_id, each.manifest.scorer) != (first.made_by.embedding_id, first.scorer):
                raise EmbeddingSpaceMismatch(
                    f"{each.name} was built by the model with embedding id {each.manifest.made_by.embedding_id}, "
                    f"{opened[0].name} by {first.made_by.embedding_id}: descriptors of two models cannot be compared. "
                    f"Embed its tiles again: {command('add', 'BUNDLE', opened[0].name, each.manifest.source)}"
                )
            if each.manifest.descriptor_size != first.descriptor_size:
                raise GalleryError(
                    f"{each.name} has descriptors of {each.manifest.descriptor_size}, {opened[0].name} of "
                    f"{first.descriptor_size}: they are not of one model."
                )
        named = ", ".join(each.name for each in opened[:_NAMED])
        more = f" and {len(opened) - _NAMED} more" if len(opened) > _NAMED else ""
        manifest = _manifest(first, named + more, storage or first.storage)
        count = 0
        with _new_folder(out) as folder:
            inner = folder / "merged"
            with FolderWriter.create(inner, manifest) as writer:
                for number, each in enumerate(track(opened, "Merging", len(opened))):
                    for tiles, descriptors in each.described():
                        _check_new(writer, tiles, opened[: number + 1])
                        writer.add(tiles, descriptors)
                        count += len(tiles)
                writer.finish()
            for file in inner.iterdir():
                file.rename(folder / file.name)
            inner.rmdir()
    return count


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """As `new_folder`: galleries that are begun in it are gone with it, and cannot go on."""
    with new_folder(out) as folder:
        try:
            yield folder
        except NoSpace:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None


def _copy(gallery: FolderGallery, rows: Rows, writer: FolderWriter) -> None:
    """Append the rows of a gallery, a block at a time, and finish the copy."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        writer.add(gallery.tiles(block.tolist()), gallery.descriptors(block))
    writer.finish()


def open_undamaged(gallery: Path, track: Track) -> FolderGallery:
    """Open a gallery that is finished and was read without a fault, for copies of it. Raises GalleryError."""
    faults = verify(gallery, track=track)
    if faults:
        first = faults[0].what if faults[0].id is None else f"{faults[0].id}: {faults[0].what}"
        raise GalleryError(
            f"{gallery} is damaged, and nothing was written ({first}). See all: {command('verify', gallery)}"
        )
    opened = open_folder(gallery)
    if not opened.info.finished:
        opened.close()
        raise GalleryError(f"{gallery} is not finished: repeat the gallery build that began it.")
    return opened


def _parts(gallery: FolderGallery, region: Region) -> Parts:
    """The parts of a region, and one for tiles without a position."""
    known = np.isfinite(gallery.lat) & np.isfinite(gallery.lon)
    placed = region(gallery.lat[known], gallery.lon[known])
    of = np.full(len(gallery), len(placed.names), np.int64)
    of[known] = placed.of
    return Parts((*placed.names, UNPLACED), of)


def _check_new(writer: FolderWriter, tiles: Sequence[Tile], galleries: Sequence[FolderGallery]) -> None:
    """Raise GalleryError naming a tile that the writer holds already, and the galleries with it."""
    held = writer.first_held(tiles)
    if held is not None:
        others = [each.name for each in galleries[:-1] if any(tile.id == held for tile in each.all_tiles())]
        raise GalleryError(
            f"{galleries[-1].name} and {others[0]} both hold a tile {held!r}: nothing was written. Ids must differ. "
            f"Remove one: {command('remove', others[0], held)}. Or build one of them with --id-prefix NAME/"
        )


def _manifest(of: GalleryManifest, source: str, storage: Storage) -> GalleryManifest:
    return GalleryManifest(
        descriptor_size=of.descriptor_size, storage=storage, source=source, made_by=of.made_by, scorer=of.scorer
    )
