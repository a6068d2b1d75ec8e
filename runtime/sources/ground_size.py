"""Sizes of tiles on the ground: which a source has, and whether they are what a model's training tiles covered.

A tile of another ground size is another input: buildings are larger or smaller than any that the model has seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import log
from statistics import median

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ImageError
from geodtr.runtime.sources.coverage import measure
from geodtr.runtime.sources.tile import Tile, TileSource
from geodtr.runtime.sources.tiled.slippy import merged_of

LEAST_RATIO = 1.25
"""By which the sizes of one gallery differ at least."""
_GAP = 1.12
"""Between two tiles of nearly the same size, by which the next size begins: below LEAST_RATIO, for a tile is a number
of whole pixels; above what a zoom level differs by from one row to the next.
"""
_TRIED = 5
_SAME = 1.25
"""The tiles of one data set differ by this factor where a zoom level was cut at several latitudes."""
_MORE = 1.1
"""Times the recommended distance that centres may be apart: tiles are spread evenly over a map."""

_STEPS_OF_A_TRACK = 5
"""Tile centres a tile's side for --track; with half as many, a generated drive's filter was sure of wrong places."""


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """Tiles of one size: the median side in metres, None where it is not known, and their numbers, int64 [N]."""

    metres: float | None
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SizeCoverage:
    """Tiles of one size in a source: the side in metres, how many there are, the median distance to the nearest other
    one, and by how much neighbours overlap; None where it is not known.
    """

    tile_metres: float | None
    tiles: int
    spacing_metres: float | None

    @property
    def overlap_metres(self) -> float | None:
        if self.tile_metres is None or self.spacing_metres is None:
            return None
        return max(0.0, self.tile_metres - self.spacing_metres)


def sizes_of(sides: Iterable[float | None]) -> list[Size]:
    """The sizes that tiles of these sides in metres have, rising; those whose side is not known come last."""
    known = np.fromiter((np.nan if side is None else side for side in sides), np.float64)
    order = np.argsort(known, kind="stable")
    sure = order[: int(np.isfinite(known).sum())]
    cuts = 1 + np.flatnonzero(np.diff(np.log(known[sure])) > log(_GAP))
    groups = [np.sort(rows) for rows in np.split(sure, cuts) if len(rows)]
    sizes = [Size(float(np.median(known[rows])), rows) for rows in groups]
    unsure = order[len(sure) :]
    return sizes if not len(unsure) else [*sizes, Size(None, np.sort(unsure))]


def measure_sizes(source: TileSource) -> list[SizeCoverage]:
    """The sizes of a source's tiles. Reads a few pictures where tiles are files, whose scale is metres per pixel."""
    pixels = _pixels_of(source)
    measured = list[SizeCoverage]()
    for size in sizes_of(side_metres(source.tiles, pixels)):
        first, last = int(size.rows[0]), int(size.rows[-1])
        if last - first + 1 == len(size.rows):
            tiles = source.tiles[first : last + 1]  # of a map that was cut: made one by one, for there may be millions
        else:
            tiles = [source.tiles[row] for row in size.rows.tolist()]
        measured.append(SizeCoverage(size.metres, len(tiles), measure(tiles).spacing_metres))
    return measured


def side_metres(tiles: Iterable[Tile], pixels: int | None) -> Iterator[float | None]:
    """The side of each tile on the ground; of a tile that was not cut out of a map, by its scale and so many pixels.

    All tiles of a zoom level get the first one's: their sides change with the latitude, and yet they are one size.
    """
    of_zoom = dict[object, float | None]()
    for tile in tiles:
        cut = tile.side_metres
        if cut is None and pixels is not None and tile.metres_per_pixel is not None:
            cut = pixels * tile.metres_per_pixel
        if "zoom" in tile.more:
            cut = of_zoom.setdefault((tile.more["zoom"], merged_of(tile)), cut)
        yield cut


def _pixels_of(source: TileSource) -> int | None:
    """Pixels a side of the tiles that state a scale, the median of a few; None where none does."""
    stated = [tile for tile in source.tiles if tile.metres_per_pixel is not None and tile.side_metres is None]
    pixels = list[int]()
    for tile in stated[:: max(1, len(stated) // _TRIED)][:_TRIED]:
        with suppress(ImageError):  # reported when the tile is embedded
            pixels.append(max(source.read(tile).image.size))
    return int(median(pixels)) if pixels else None


@dataclass(frozen=True, slots=True)
class Advice:
    """For tiles of `tile_metres` as in training: neighbours overlap by half, and for tracks by more. `cut`: they are
    cut out of a map; others are as they are.
    """

    tile_metres: float
    cut: bool = True

    def of(self, source: TileSource) -> "Advice":
        """The same for a source's tiles."""
        return replace(self, cut=any(tile.is_window for tile in source.tiles[:1]))

    @property
    def overlap(self) -> float:
        """Metres."""
        return self.tile_metres / 2

    @property
    def overlap_of_tracks(self) -> float:
        """Metres."""
        return self.tile_metres * (1 - 1 / _STEPS_OF_A_TRACK)

    @property
    def recommended(self) -> str:
        """For the user: options as they are typed, where there are some."""
        size, overlap, more = (f"{metres:g}" for metres in (self.tile_metres, self.overlap, self.overlap_of_tracks))
        if self.cut:
            return f"--tile-metres {size} --overlap {overlap}; for --track, --overlap {more}"
        how = "of map tiles by --zoom, --merge and --step"
        return f"tiles of {size} m that overlap by {overlap} m; for --track, by {more} m ({how})"

    def faults(self, sizes: Sequence[SizeCoverage], *, apart: bool = True) -> list[str]:
        """What is wrong with tiles of these sizes, as sentences for the user; nothing where it is not known. Of several
        sizes, the one nearest to the training tiles counts. `apart`: tiles too far from each other are a fault as well.
        """
        faults = list[str]()
        known = [size for size in sizes if size.tile_metres is not None]
        nearest = min(known, key=lambda size: abs(log((size.tile_metres or 1) / self.tile_metres)), default=None)
        size = nearest or next(iter(sizes), None)
        side, spacing = (None, None) if size is None else (size.tile_metres, size.spacing_metres)
        if side is not None and not 1 / _SAME < side / self.tile_metres < _SAME:
            faults.append(
                f"The model was trained on tiles of {self.tile_metres:g} m, and these cover {side:.0f} m: few will be "
                f"recognised. Recommended: {self.recommended}"
            )
        if apart and spacing is not None and spacing > _MORE * (self.tile_metres - self.overlap):
            faults.append(
                f"Tile centres are {spacing:.0f} m apart; a place between them is shown by no tile's middle. "
                f"Recommended: {self.recommended}"
            )
        return faults

    def fault_of_tracks(self, spacing: float) -> str | None:
        """What is wrong for a track with tile centres so many metres apart, as a sentence for the user."""
        wanted = self.tile_metres - self.overlap_of_tracks
        if spacing <= _MORE * wanted:
            return None
        return (
            f"Tile centres are {spacing:.0f} m apart, so a track may be found late, or never. Build a gallery of tiles "
            f"of {self.tile_metres:g} m at most {wanted:g} m apart."
        )
