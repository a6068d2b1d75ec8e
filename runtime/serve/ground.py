"""Pictures for the page, from the gallery's own source: the ground under a square of the web's map, and a tile.

Knows galleries; knows nothing of HTTP.
"""

from functools import lru_cache
from math import atan, ceil, cos, degrees, log2, pi, radians, sinh
from threading import Lock

import numpy as np

from geodtr.runtime.errors import ImageError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.ground import Reread, ground_of, spacing_of
from geodtr.runtime.geodesy import SEMI_MAJOR
from geodtr.runtime.images.decode import encoded
from geodtr.runtime.sources.coverage import Frame, frame_of

SIDE = 256
"""Pixels of a square of the map."""
MAX_ZOOM = 24
_KEPT = 512
_EACH = 256
"""Tiles of the gallery in one square of the map at most; farther out the page draws their places."""
_THUMBNAIL = 320


class Ground:
    """What one gallery's tiles show. Safe to call from several threads.

    `frame` is what they cover, None without positions; `spacing` the metres from tile to tile, None where it is not
    known; `zoom` the least zoom at which squares are drawn.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._pixels = Reread()
        self._lock = Lock()
        self._drawn = lru_cache(_KEPT)(self._draw)
        self.frame, self.spacing = _covered(gallery), spacing_of(gallery)
        self.zoom = self._least_zoom()
        self.drawn = self.frame is not None and self._readable()

    def square(self, zoom: int, x: int, y: int) -> bytes | None:
        """WebP of a square in web Mercator's numbering, None where nothing is known."""
        if not (self.drawn and self.zoom <= zoom <= MAX_ZOOM and 0 <= x < 2**zoom and 0 <= y < 2**zoom):
            return None
        with self._lock:  # one after the other: a page that asks for many must not take the engine's cores
            return self._drawn(zoom, x, y)

    def tile(self, row: int) -> bytes:
        """WebP of the gallery's tile, made small. Raises IndexError where there is no such row, ImageError where its
        file cannot be read any more.
        """
        (tile,) = self._gallery.tiles([row])
        return encoded(self._pixels.read(tile).image, "WEBP", _THUMBNAIL)

    def _draw(self, zoom: int, x: int, y: int) -> bytes | None:
        frame = _frame(zoom, x, y)
        covered = self.frame
        if covered is None or frame.south > covered.north or frame.north < covered.south:
            return None
        mosaic = ground_of(self._gallery, frame, (SIDE, SIDE), pixels=self._pixels, apart=self.spacing)
        return None if mosaic.image.getchannel("A").getbbox() is None else encoded(mosaic.image, "WEBP")

    def _least_zoom(self) -> int:
        """Where a square holds _EACH tiles of a map without gaps."""
        if self.frame is None or self.spacing is None:
            return 0
        lat = (self.frame.south + self.frame.north) / 2
        around = 2 * pi * SEMI_MAJOR * cos(radians(lat))
        side = self.spacing * _EACH**0.5
        return max(0, min(MAX_ZOOM - 4, ceil(log2(max(around / max(side, 1e-3), 1)))))

    def _readable(self) -> bool:
        """Whether one of the first tiles can still be read, so that it makes sense to ask for squares."""
        for tile in self._gallery.tiles(self._gallery.rows[:3].tolist()):
            try:
                self._pixels.read(tile)
            except ImageError:
                continue
            return True
        return False


def _covered(gallery: Gallery) -> Frame | None:
    lat, lon = gallery.lat, gallery.lon
    known = np.isfinite(lat) & np.isfinite(lon)
    return frame_of(lat[known], lon[known]) if known.any() else None


def _frame(zoom: int, x: int, y: int) -> Frame:
    """The box of a square. Source: the web Mercator of Google's and OpenStreetMap's tiles, 2**zoom squares a side."""
    count = 2**zoom
    north, south = (degrees(atan(sinh(pi * (1 - 2 * row / count)))) for row in (y, y + 1))
    return Frame(south, x / count * 360 - 180, north, (x + 1) / count * 360 - 180)
