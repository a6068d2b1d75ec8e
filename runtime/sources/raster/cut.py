"""How a map is cut into tiles, and the tiles that it gives. Knows windows; reads no map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Annotated, overload

from msgspec import Meta

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ArgumentError, ConfigError
from geodtr.runtime.sources.ground_size import LEAST_RATIO
from geodtr.runtime.sources.raster.grid import Grid
from geodtr.runtime.sources.tile import Tile

LARGEST_TILE = 4096
"""Pixels a side in which a tile is drawn, at most: some 200 MB while it is read, in each of several threads."""


@dataclass(frozen=True, slots=True)
class GeoTiffOptions:
    """How a map is cut: tiles of `tile_metres` on the ground, centres at most `stride_metres` apart (a tile's size
    where it is None), drawn in `tile_pixels` (as many as the map has where it is None, up to LARGEST_TILE). For tiles
    of several sizes, `tile_metres` are all of them, and `stride_metres` one for each.

    `bands` are the three to read as red, green and blue, or one that is grey; `stretch` the values that become 0 and
    255, needed where the map does not hold 8-bit ones. A tile of which more than the share `max_empty` has no data is
    left out: by the map's own marks, and where every band that is read is `nodata`.
    Raises ConfigError naming a value out of range.
    """

    tile_metres: float | tuple[float, ...]
    stride_metres: float | tuple[float, ...] | None = None
    tile_pixels: Annotated[int | None, Meta(ge=1, le=LARGEST_TILE)] = None
    bands: tuple[int, ...] | None = None
    stretch: tuple[float, float] | None = None
    max_empty: Annotated[float, Meta(ge=0, le=1)] = 0.2
    nodata: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        sizes, strides = _each(self.tile_metres), _each(self.stride_metres)
        for name, metres in (("tile_metres", sizes), ("stride_metres", strides)):
            for each in metres:
                if not (isfinite(each) and each > 0):
                    raise ArgumentError(name, f"is {each:g}; it must be above 0.")
        if not sizes or (strides and len(strides) != len(sizes)):
            raise ConfigError(f"{len(sizes)} sizes of tiles and {len(strides)} strides are given; give one for each.")
        for small, large in pairwise(sorted(sizes)):
            if large < LEAST_RATIO * small:
                raise ConfigError(
                    f"Tiles of {small:g} and of {large:g} m are nearly the same; sizes of one gallery differ by a "
                    f"factor of {LEAST_RATIO:g} at least."
                )
        if self.bands is not None and len(self.bands) not in (1, 3):
            raise ArgumentError(
                "bands", f"names {len(self.bands)} bands; name three (red, green, blue), or a grey one."
            )
        if self.stretch is not None and not (all(map(isfinite, self.stretch)) and self.stretch[0] < self.stretch[1]):
            raise ArgumentError("stretch", f"is {self.stretch[0]:g} to {self.stretch[1]:g}; it must rise.")
        if self.nodata is not None and not isfinite(self.nodata):
            raise ArgumentError("nodata", f"is {self.nodata:g}; a finite number is needed.")

    @property
    def cuts(self) -> tuple[tuple[float, float], ...]:
        """A tile's side and the distance between centres, in metres, for each size."""
        sizes = _each(self.tile_metres)
        return tuple(zip(sizes, _each(self.stride_metres) or sizes, strict=True))


def _each(metres: float | tuple[float, ...] | None) -> tuple[float, ...]:
    if metres is None:
        return ()
    return metres if isinstance(metres, tuple) else (metres,)


@dataclass(frozen=True, slots=True)
class MapCut(Sequence[Tile]):
    """The tiles of the map `path`, made when they are asked for: there may be millions. Each is drawn in `pixels`, the
    map's own where that is None and a tile has at most LARGEST_TILE of them, with the bands and the stretch that were
    `asked` for, by which it can be read again.
    """

    path: Path
    grid: Grid
    pixels: int | None
    asked: Mapping[str, Sequence[float]]

    def __len__(self) -> int:
        return len(self.grid)

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> "MapCut": ...
    def __getitem__(self, index: int | slice) -> "Tile | MapCut":
        if isinstance(index, slice):
            return MapCut(self.path, self.grid[index], self.pixels, self.asked)
        tile = self.grid[index]
        window = [tile.column, tile.row, tile.width, tile.height]
        pixels = self.pixels or (LARGEST_TILE if max(window[2:]) > LARGEST_TILE else None)
        drawn = {} if pixels is None else {"pixels": pixels}
        return Tile(
            id=f"{self.path.name}#{','.join(map(str, window))}",
            file=str(self.path),
            lat=tile.lat,
            lon=tile.lon,
            heading=tile.heading,
            metres_per_pixel=tile.metres / (pixels or max(tile.width, tile.height)),
            more={"window": window, **drawn, **self.asked, **({"flipped": True} if tile.flipped else {})},
        )
