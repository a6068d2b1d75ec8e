"""Map tiles of the web's scheme, zoom, x and y in Web Mercator: what their numbers mean on the ground, and references
made of them.

Knows tile numbers; where their images are kept, in a folder or in one file, is a store's.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import atan, cos, degrees, pi, radians, sinh
from pathlib import Path
from typing import Annotated, Protocol

from msgspec import Meta
from PIL import Image

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ArgumentError, DataError, ImageError
from geodtr.runtime.geodesy import metres_per_degree
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.sources.tile import MAX_TILES, Tile

MAX_ZOOM = 30

MAX_BYTES = 32 << 20
"""Of one tile's image in a file of many."""

LARGEST_MERGED = 8192
"""Pixels a side of a reference that is merged: 200 MB, in each of several threads."""


@dataclass(frozen=True, slots=True)
class XyzOptions:
    """Which tiles are read: of `zoom` (the only one where it is None), `tms` where y counts from the south.

    `merge` x `merge` neighbours make one reference; references begin `step` tiles apart (`merge` where it is None), so
    that a smaller step overlaps them. Raises ConfigError naming a value out of range.
    """

    zoom: Annotated[int | None, Meta(ge=0, le=MAX_ZOOM)] = None
    tms: bool = False
    merge: Annotated[int, Meta(ge=1, le=16)] = 1
    step: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.step is not None and not 1 <= self.step <= self.merge:
            fault = f"is {self.step}; allowed are 1 to {self.merge}, the tiles that each merges ({{}})."
            raise ArgumentError("step", fault, "merge")


ALL_TILES = XyzOptions()


def place(x: float, y: float, zoom: int) -> tuple[float, float]:
    """Latitude and longitude (degrees) of a point in tile numbers; (x, y) is a tile's upper left corner, and
    (x + 0.5, y + 0.5) what its middle pixel shows.

    lon = 360 x / 2^z - 180, lat = atan(sinh(pi (1 - 2 y / 2^z))). Source: OpenStreetMap wiki, Slippy map tilenames;
    the same as mercantile.ul.
    """
    count = 1 << zoom
    return degrees(atan(sinh(pi * (1 - 2 * y / count)))), 360 * x / count - 180


def metres_per_pixel(lat: float, zoom: int, side: int) -> float:
    """Metres on the ground of a pixel at `lat` (degrees) in tiles of `side` pixels, the mean of its two sides. It is
    360 / (side 2^z) degrees wide, and cos(lat) times as many high: `place`, derived.
    """
    north, east = metres_per_degree(lat)
    return float(east + north * cos(radians(lat))) / 2 * 360 / (side * (1 << zoom))


def merged_of(tile: Tile) -> int:
    """How many map tiles a side a reference is merged of, by its id."""
    merged = re.search(r"\+(\d{1,2})$", tile.id)
    return int(merged[1]) if merged else 1


class TileStore(Protocol):
    """Where map tiles of one zoom are kept, x counted from the west and y from the north. It can be pickled."""

    def name(self, x: int, y: int) -> str:
        """What a person would call the tile's image: a file, or a place in one."""
        ...

    def image(self, x: int, y: int) -> Image.Image:
        """The tile's image, RGB; safe to call from several threads. Raises ImageError naming it."""
        ...


@dataclass(frozen=True, slots=True)
class MapTiles:
    """A TileSource over the map tiles of one zoom, each `side` pixels; `merge` x `merge` of them make a reference."""

    name: str
    tiles: Sequence[Tile]
    notes: tuple[str, ...]
    store: TileStore
    side: int
    merge: int

    def read(self, tile: Tile) -> Decoded:
        """The tile's image, or those that it is merged from side by side.

        Raises ImageError naming an image that cannot be read, or is not of the size of the others.
        """
        x, y = tile.more["x"], tile.more["y"]
        merged = Image.new("RGB", (self.merge * self.side, self.merge * self.side))
        for down, right in product(range(self.merge), repeat=2):
            merged.paste(self._image(x + right, y + down), (right * self.side, down * self.side))
        return Decoded(merged, None)

    def _image(self, x: int, y: int) -> Image.Image:
        image = self.store.image(x, y)
        if image.size != (self.side, self.side):
            raise ImageError(
                f"{self.store.name(x, y)} has {image.width}x{image.height} pixels, the first tile "
                f"{self.side}x{self.side}: its metres per pixel would be wrong. Replace or remove it."
            )
        return image


def choose_zoom(where: str, zooms: Sequence[int], asked: int | None) -> int:
    """The zoom that is `asked` for, or the only one. Raises DataError when there is another number of them."""
    if asked is not None and asked in zooms:
        return asked
    if asked is None and len(zooms) == 1:
        return zooms[0]
    held = f"{where} holds the zooms {', '.join(map(str, zooms))}" if zooms else f"{where} holds no map tiles"
    raise DataError(f"{held}; " + ("choose one: --zoom Z" if asked is None else f"there is no {asked}."))


def check_count(path: Path, zoom: int, count: float) -> None:
    """Raise DataError where a file holds more tiles of a zoom than MAX_TILES."""
    if count > MAX_TILES:
        raise DataError(f"{path} holds more than {MAX_TILES:,} tiles of zoom {zoom}. Choose a smaller zoom: --zoom Z")


def vector_tiles(path: Path) -> DataError:
    """The error of a file of vector tiles."""
    return DataError(
        f"{path} holds vector tiles, which are no pictures. Export an image layer: in QGIS, Generate XYZ tiles "
        "(MBTiles)."
    )


def name_in_file(path: Path, zoom: int, x: int, y: int) -> str:
    """What a person would call a tile's image in a file of many."""
    return f"{path}#{zoom}/{x}/{y}"


def map_tiles(
    name: str,
    store: TileStore,
    numbers: Iterable[tuple[int, int]],
    zoom: int,
    options: XyzOptions,
    notes: Sequence[str],
) -> MapTiles:
    """References of the tiles with these x and y, by column from the west and within it from the north. An id is z/x/y,
    with +K when K x K are merged.

    Raises DataError when nowhere are there enough to merge, or they are too large together, ImageError when the first
    image cannot be read, whose size decides the metres of a pixel.
    """
    merge = options.merge
    corners, incomplete = _corners(numbers, merge, options.step or merge)
    if not corners:
        raise DataError(f"{name}: nowhere are there {merge} x {merge} tiles to merge. Merge fewer.")
    side = _side(store, *corners[0])
    if merge > 1 and merge * side > LARGEST_MERGED:
        raise DataError(
            f"{name}: {merge} x {merge} tiles of {side} pixels are {merge * side} pixels wide; allowed are up to "
            f"{LARGEST_MERGED}. Merge fewer."
        )
    messages = [f"Map tiles of zoom {zoom}, {side} pixels each.", *notes]
    if incomplete:
        messages.append(f"{incomplete} references are left out: not all of their {merge**2} tiles are there.")
    tiles = [_tile(x, y, zoom, store.name(x, y), side, merge) for x, y in corners]
    return MapTiles(name, tiles, tuple(messages), store, side, merge)


def _corners(numbers: Iterable[tuple[int, int]], merge: int, step: int) -> tuple[list[tuple[int, int]], int]:
    """The upper left tiles of references that have all their tiles, and the number of references that lack some."""
    there = set(numbers)
    first_x, first_y = (min(at[axis] for at in there) for axis in (0, 1))
    corners = [(x, y) for x, y in sorted(there) if (x - first_x) % step == 0 and (y - first_y) % step == 0]
    whole = [
        (x, y)
        for x, y in corners
        if all((x + right, y + down) in there for right in range(merge) for down in range(merge))
    ]
    return whole, len(corners) - len(whole)


def _side(store: TileStore, x: int, y: int) -> int:
    width, height = store.image(x, y).size
    if height != width:
        raise ImageError(f"{store.name(x, y)} has {width}x{height} pixels; a map tile is square. Replace or remove it.")
    return width


def _tile(x: int, y: int, zoom: int, file: str, side: int, merge: int) -> Tile:
    lat, lon = place(x + merge / 2, y + merge / 2, zoom)
    return Tile(
        id=f"{zoom}/{x}/{y}" + (f"+{merge}" if merge > 1 else ""),
        file=file,
        lat=lat,
        lon=lon,
        heading=0.0,
        metres_per_pixel=metres_per_pixel(lat, zoom, side),
        more={"zoom": zoom, "x": x, "y": y},
    )
