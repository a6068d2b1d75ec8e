"""Windows of the map around a place: north up, of one resolution, laid together from a gallery's tiles.

The tiles' pixels are read where the gallery was built from. Works with OpenCV, which is imported inside the calls.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, log2, radians, sin, sqrt
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.ground import Reread
from geodtr.runtime.geodesy import Near, distance, east_north, moved
from geodtr.runtime.images.nadir import whole_pixels
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Images

_CACHED = 4096
"""Shrunk tiles that are kept: some 100 MB."""

Place = tuple[float, float]
"""Latitude and longitude in degrees."""


def place_at(place: Place, metres: Floats) -> Place:
    """The place so many metres east and north."""
    lat, lon = moved(*place, *metres)
    return float(lat), float(lon)


def step_of(resolution: float, per_octave: int = 1) -> float:
    """The nearest of few resolutions, for which shrunk tiles are kept."""
    return float(2 ** (round(per_octave * log2(resolution)) / per_octave))


@dataclass(frozen=True, slots=True)
class MapWindow:
    """A square of the map around a place, `resolution` metres a pixel, uint8 RGB [side, side, 3], and which pixels are
    known, bool [side, side].
    """

    image: Images
    known: NDArray[np.bool_]
    resolution: float

    def metres(self, pixels: Floats) -> Floats:
        """Pixels from the corner, [N, 2], as metres east and north of the place."""
        return np.asarray((pixels - len(self.image) / 2) * (self.resolution, -self.resolution), np.float64)


class MapWindows:
    """Cuts windows out of a gallery's map, of its tiles in `rows` (None: all), which are at most `side` metres wide; a
    tile of unknown scale has this side. Safe to use from several threads.
    """

    def __init__(self, gallery: Gallery, side: float, rows: Rows | None = None) -> None:
        self._gallery, self._side = gallery, side
        self._keys, self._lat, self._lon = gallery.rows, gallery.lat, gallery.lon
        if rows is not None:
            used = np.isin(self._keys, rows)
            self._lat, self._lon = (np.where(used, each, np.nan) for each in (self._lat, self._lon))
        self._pixels = Reread()
        self._lock = Lock()
        self._tiles: dict[int, Tile] = {}
        self._shrunk: OrderedDict[tuple[int, float], tuple[Images, float]] = OrderedDict()

    def cut(self, place: Place, side: int, resolution: float, finest: float) -> MapWindow:
        """A window of `side` pixels; further ones will be cut around it whose resolution is halved, down to `finest`.
        Resolutions should be few, as shrunk tiles are kept for each.

        Raises ImageError when a tile cannot be read any more.
        """
        window = MapWindow(np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.bool_), resolution)
        rows, middles = self._near(place, side * resolution)
        tiles = self._rows(rows)
        shown = _shown(middles, tiles, self._side, side, resolution)
        for row, tile, middle, (top, bottom, left, right) in zip(rows, tiles, middles, shown, strict=True):
            if window.known[top:bottom, left:right].all():
                continue
            image, scale = self._shrink(row, tile, resolution, finest)
            _lay(window, image, scale, middle, tile.heading or 0.0)
            if window.known.all():
                break
        return window

    def extent(self) -> tuple[Place, float]:
        """The map's middle, and the metres of a square around it that holds all of its tiles; 0 where no tile has a
        position.
        """
        lat, lon = self._lat, self._lon
        if not np.isfinite(lat).any():
            return (0.0, 0.0), 0.0
        middle = tuple(float(np.nanmin(each) + np.nanmax(each)) / 2 for each in (lat, lon))
        metres = np.abs(np.stack(east_north(lat, lon, *middle)))
        return (middle[0], middle[1]), 2 * float(np.nanmax(metres)) + self._side

    def nearest(self, place: Place) -> Tile:
        """The tile whose middle is nearest."""
        away = distance(*place, self._lat, self._lon)
        return self._rows([int(self._keys[np.nanargmin(away)])])[0]

    def _near(self, place: Place, side: float) -> tuple[list[int], Floats]:
        """The tiles that reach into a square of `side` metres, with their middles [N, 2], metres east and north.

        Tiles of a grid as wide as a tile come first, so that few are read where tiles overlap.
        """
        lat, lon = self._lat, self._lon
        rows = np.flatnonzero(Near(*place, sqrt(0.5) * (side + self._side)).holds(lat, lon))
        if not len(rows):
            return [], np.empty((0, 2))
        middles = np.stack(east_north(lat[rows], lon[rows], *place), axis=1)
        away = np.hypot(*middles.T)
        phase = (middles - middles[np.argmin(away)]) / self._side
        off = np.abs(phase - np.round(phase)).max(axis=1)
        order = np.lexsort((away, np.round(10 * off)))
        return self._keys[rows[order]].tolist(), middles[order]

    def _rows(self, rows: list[int]) -> list[Tile]:
        """The tiles in these rows, each read from the gallery once."""
        with self._lock:
            missing = [row for row in rows if row not in self._tiles]
            self._tiles.update(zip(missing, self._gallery.tiles(missing), strict=True))
            return [self._tiles[row] for row in rows]

    def _shrink(self, row: int, tile: Tile, resolution: float, finest: float) -> tuple[Images, float]:
        """A tile's pixels, shrunk by averaging to about this resolution, and metres of a pixel."""
        with self._lock:
            if (row, resolution) in self._shrunk:
                self._shrunk.move_to_end((row, resolution))
                return self._shrunk[row, resolution]
        image = self._pixels.read(tile).image
        own = tile.metres_per_pixel or self._side / image.width
        step = finest
        while step <= resolution:
            width, height = (max(1, round(length * min(1.0, own / step))) for length in image.size)
            smaller = image if width == image.width else image.resize((width, height), Image.Resampling.BOX)
            entry = np.asarray(smaller), own * image.width / width
            with self._lock:
                self._shrunk[row, step] = entry
                if len(self._shrunk) > _CACHED:
                    self._shrunk.popitem(last=False)
            step *= 2
        return entry


def _shown(
    middles: Floats, tiles: Sequence[Tile], metres: float, side: int, resolution: float
) -> list[tuple[int, int, int, int]]:
    """Of a window of `side` pixels the rows and columns, from and to, that each tile of `metres` may show. A pixel
    that it shows in part is left out: at the map's edge, where nothing beyond is ever known, every tile would be laid
    otherwise.
    """
    angle = np.radians([tile.heading or 0.0 for tile in tiles])
    reach = (np.abs(np.cos(angle)) + np.abs(np.sin(angle)))[:, None] * metres / 2 / resolution
    at = side / 2 + middles[:, ::-1] * (-1, 1) / resolution
    low, high = np.ceil(at - reach), np.floor(at + reach)
    edges = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    bounds: list[tuple[int, int, int, int]] = np.clip(edges, 0, side).astype(np.intp).tolist()
    return bounds


def _lay(window: MapWindow, image: Images, scale: float, middle: Floats, heading: float) -> None:
    """Lay a tile, `scale` metres a pixel, whose upper edge points to `heading`, where the window is not known yet."""
    import cv2

    height, width = image.shape[:2]
    angle, half, ratio = radians(heading), len(window.image) / 2, window.resolution / scale
    # From the window's pixels to the tile's.
    rotation = ratio * np.array([(cos(angle), sin(angle)), (-sin(angle), cos(angle))])
    centre = half + middle * (1, -1) / window.resolution
    reach = np.abs(np.linalg.inv(rotation)) @ (width / 2, height / 2)
    (left, top), (right, bottom) = np.rint(centre - reach).astype(int), np.rint(centre + reach).astype(int)
    columns, rows = (slice(max(0, low), min(len(window.image), high)) for low, high in ((left, right), (top, bottom)))
    size = columns.stop - columns.start, rows.stop - rows.start
    if min(size) <= 0:
        return
    shift = rotation @ (np.array([columns.start, rows.start]) - centre) + (width / 2, height / 2)
    to_tile = whole_pixels(np.column_stack([rotation, shift]))
    how = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    laid = cv2.warpAffine(image, to_tile, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    new = ~window.known[rows, columns]
    if heading:
        new &= cv2.warpAffine(np.ones((height, width), np.uint8), to_tile, size, flags=cv2.WARP_INVERSE_MAP) > 0
    cv2.copyTo(laid, new.view(np.uint8), window.image[rows, columns])  # three times as fast as NumPy's with a mask
    window.known[rows, columns] |= new
