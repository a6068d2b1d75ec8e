"""What a gallery's tiles show of the ground, from the files that they were built from, where these are still there."""

import re
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from geodtr.runtime.errors import ConfigError, ImageError, UserError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.images.decode import Decoded, decode
from geodtr.runtime.sources.coverage import Frame, measure
from geodtr.runtime.sources.mosaic import Mosaic, lay_mosaic
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import GeoTiff, reopen_geotiff
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.sources.tiled.slippy import MapTiles, XyzOptions, merged_of

T = TypeVar("T")

MOST = 2000
"""Tiles that are read one by one: some ten seconds."""
_SAMPLE = 2000
_BEYOND = 0.1
"""Of the frame's size: how far outside a tile may have its centre and still show something within."""
_PLACE = re.compile(r"(?:(?P<file>.+)#|(?P<folder>.+)[/\\])\d+[/\\]\d+[/\\](?P<y>\d{1,10})[^/\\]*", re.DOTALL)
"""What a map tile's origin looks like: town.mbtiles#18/71/92, or a file tiles/18/71/92.png."""


def ground_of(
    gallery: Gallery,
    frame: Frame,
    size: tuple[int, int],
    *,
    pixels: "Reread | None" = None,
    apart: float | None = None,
) -> Mosaic:
    """The ground within a frame as a picture of `size` pixels. Where there are more than MOST tiles, only maps that
    tiles were cut from are read. Those who ask often keep `pixels`, and the metres from tile to tile, `apart`.
    """
    wide, high = frame.size
    beyond = _BEYOND * max(wide, high)
    x, y = frame.metres(gallery.lat, gallery.lon)
    inside = (-beyond <= x) & (x <= wide + beyond) & (-beyond <= y) & (y <= high + beyond)
    rows = gallery.rows[inside]  # a tile without a position, NaN, is never inside
    tiles = gallery.tiles(rows[:: 1 + len(rows) // MOST].tolist())
    if len(rows) > MOST:
        tiles = [tile for tile in tiles if tile.is_window]
    apart = measure(tiles).spacing_metres if apart is None else apart
    return lay_mosaic(pixels or Reread(), tiles, frame, size, apart=apart)


def spacing_of(gallery: Gallery) -> float | None:
    """Metres from tile to tile, None where it is not known: of the tiles about the middle one, because tiles of a
    sample spread over a gallery are far apart.
    """
    lat, lon = gallery.lat, gallery.lon
    rows = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
    if len(rows) > _SAMPLE:
        middle = rows[len(rows) // 2]
        order = np.argsort((lat[rows] - lat[middle]) ** 2 + (lon[rows] - lon[middle]) ** 2)
        rows = rows[order[:_SAMPLE]]
    apart = measure(gallery.tiles(gallery.rows[rows].tolist())).spacing_metres
    return apart if apart is not None and isfinite(apart) and apart > 0 else None


class Reread:
    """The pixels of tiles from the files that they came from, where these are still there. Safe to call from several
    threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._opened: dict[object, Any] = {}

    def read(self, tile: Tile) -> Decoded:
        """Raises ImageError when the file is gone, holds no such tile any more, or cannot be drawn."""
        if tile.is_window:
            return self._map(tile).read(tile)
        if "zoom" not in tile.more:
            return decode(Path(tile.file))
        origin = _PLACE.fullmatch(tile.file)
        zoom, x, y = (tile.more.get(name) for name in ("zoom", "x", "y"))
        if origin is None or not all(isinstance(number, int) for number in (zoom, x, y)):
            raise ImageError(f"{tile.file} is not where a map tile is.")
        place = origin["file"] or origin["folder"]
        tms = origin["folder"] is not None and int(origin["y"]) != y
        source, held = self._source(Path(place), zoom, merged_of(tile), tms)
        if (x, y) not in held:
            raise ImageError(f"{place} holds no tile {zoom}/{x}/{y} any more.")
        return source.read(tile)

    def _map(self, tile: Tile) -> GeoTiff:
        try:
            options = GeoTiffOptions(
                1.0, bands=_numbers(tile, "bands", int), stretch=_numbers(tile, "stretch", float, 2)
            )
        except (TypeError, ValueError, ConfigError) as error:
            raise ImageError(f"{tile.id} does not say how it is drawn ({error}).") from None
        key = tile.file, options.bands, options.stretch
        return self._once(key, lambda: reopen_geotiff(Path(tile.file), options.bands, options.stretch))

    def _source(self, place: Path, zoom: int | None, merge: int, tms: bool) -> tuple[MapTiles, frozenset[object]]:
        def opened() -> tuple[MapTiles, frozenset[object]]:
            source = open_source(place, XyzOptions(zoom, tms, merge, step=1))
            assert isinstance(source, MapTiles)
            return source, frozenset((tile.more["x"], tile.more["y"]) for tile in source.tiles)

        return self._once((place, zoom, merge, tms), opened)

    def _once(self, key: object, open_it: Callable[[], T]) -> T:
        """What was opened before by this key; an error of then is raised again."""
        with self._lock:
            if key not in self._opened:
                try:
                    self._opened[key] = open_it()
                except UserError as error:
                    self._opened[key] = error
            opened: T | UserError = self._opened[key]
        if isinstance(opened, UserError):
            raise ImageError(str(opened))
        return opened


def _numbers(tile: Tile, name: str, kind: Callable[[Any], Any], count: int | None = None) -> Any:
    """The numbers that a tile keeps by this name, as a tuple; None without any. Raises TypeError or ValueError."""
    values = tile.more.get(name)
    if values is not None and count not in (None, len(values)):
        raise ValueError(f"{name} has {len(values)} numbers")
    return None if values is None else tuple(kind(value) for value in values)
