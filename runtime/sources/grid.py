"""How a map is cut into tiles of a ground size: windows of whole pixels, spread evenly over all of it.

Knows where pixels lie on the Earth; knows nothing of files or colours.
"""

from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np

from geodtr.runtime.errors import DataError
from geodtr.runtime.geodesy import Values, displacement

_SAMPLES = 257
"""Points at which a line across the map is measured: the scale of a projection changes slowly."""

_SLACK = 0.005
"""The share of the map's length that may be missing, or left over: a sheet of a round size in its projection's metres,
which differ from metres on the ground by a part in a thousand, is cut as its owner expects.
"""

_MOST = 5_000_000
"""Tiles: more are a mistake in the size, or in the file."""

_LARGEST_SHEAR = 0.02
"""Cosine of the angle between a map's rows and columns on the ground."""


class Locate(Protocol):
    """Where points of the map lie: columns and rows in pixels (0, 0 is the corner of the first one), float64 [N], to
    latitude and longitude in degrees, WGS 84, float64 [N].
    """

    def __call__(self, columns: Values, rows: Values) -> tuple[Values, Values]: ...


@dataclass(frozen=True, slots=True)
class GridTile:
    """A window of the map in pixels and what it is on the ground: its centre (degrees), where the side that is drawn
    above points (degrees clockwise from north), and the mean of its two sides in metres.

    With `flipped`, the map's rows run upwards: read them in reverse, or the tile is a mirror image.
    """

    column: int
    row: int
    width: int
    height: int
    lat: float
    lon: float
    heading: float
    metres: float
    flipped: bool


def lay_out(width: int, height: int, locate: Locate, tile_metres: float, stride_metres: float) -> list[GridTile]:
    """Tiles of `tile_metres` on the ground over a map of so many pixels, by rows; neighbours' centres at most
    `stride_metres` apart (a little more where half a per cent of the map would ask for one more).

    Metres are true ones on the ellipsoid, measured in place: the scale of Web Mercator, or of degrees, changes within a
    map. Windows are whole pixels, so that a tile's size is right within half a pixel a side, and nothing is resampled
    that need not be. The outer tiles end with the map.

    Raises DataError when the map is smaller than a tile, or sheared, or would come to more than five million tiles.
    """
    middle = np.full(_SAMPLES, width / 2)
    down = np.linspace(0, height, _SAMPLES)
    centres_down = _spread(down, locate(middle, down), tile_metres, stride_metres)
    rows = list[Values]()
    for row in centres_down:
        rows.append(_row(width, row, locate, tile_metres, stride_metres))
        if len(rows[-1]) * len(centres_down) > _MOST:
            raise DataError(_too_many(tile_metres, stride_metres))
    x = np.concatenate([*rows, np.empty(0)])
    y = np.repeat(centres_down, [len(row) for row in rows])
    if not len(x):
        raise DataError(
            f"No tile of {tile_metres:g} m fits into the map, which is {_length(locate(middle, down)):.0f} m high and "
            f"{_length(locate(np.linspace(0, width, _SAMPLES), np.full(_SAMPLES, height / 2))):.0f} m wide in its "
            "middle. Ask for a smaller --tile-metres."
        )
    return _measure(width, height, locate, x, y, tile_metres)


def _too_many(tile: float, stride: float) -> str:
    return f"Tiles of {tile:g} m, {stride:g} m apart, would be more than {_MOST:,}. Ask for a larger --tile-metres."


def _row(width: int, row: float, locate: Locate, tile_metres: float, stride_metres: float) -> Values:
    across = np.linspace(0, width, _SAMPLES)
    return _spread(across, locate(across, np.full(_SAMPLES, row)), tile_metres, stride_metres)


def _spread(pixels: Values, places: tuple[Values, Values], tile: float, stride: float) -> Values:
    """Where tiles' centres lie on a line across the map, in its pixels: from end to end, evenly in metres."""
    metres = _distances(places)
    room, slack = metres[-1] - tile, _SLACK * metres[-1]
    if room < -slack:
        return np.empty(0)
    steps = max(0, ceil((room - slack) / stride))
    if steps > _MOST:
        raise DataError(_too_many(tile, stride))
    centres = tile / 2 + np.linspace(0, room, steps + 1) if steps else np.array([metres[-1] / 2])
    return np.interp(centres, metres, pixels)


def _distances(places: tuple[Values, Values]) -> Values:
    """Metres from the first of the places to each, along the line through them all."""
    lat, lon = places
    steps = np.hypot(*displacement(lat[:-1], lon[:-1], lat[1:], lon[1:]))
    return np.concatenate([np.zeros(1), np.cumsum(steps)])


def _length(places: tuple[Values, Values]) -> float:
    return float(_distances(places)[-1])


def _measure(width: int, height: int, locate: Locate, x: Values, y: Values, tile_metres: float) -> list[GridTile]:
    """The windows about the centres (x, y), each as large as the ground is there."""
    across, down = _scale(locate, x, y)
    w = np.clip(np.rint(tile_metres / np.hypot(*across)), 1, width).astype(np.int64)
    h = np.clip(np.rint(tile_metres / np.hypot(*down)), 1, height).astype(np.int64)
    left = np.clip(np.rint(x - w / 2), 0, width - w).astype(np.int64)
    top = np.clip(np.rint(y - h / 2), 0, height - h).astype(np.int64)
    lat, lon = locate(left + w / 2, top + h / 2)
    # Seen from above, rows run to the right of columns; the other way round the map is stored from below.
    flipped = across[0] * down[1] - across[1] * down[0] > 0
    up = np.where(flipped, 1, -1) * down
    heading = np.degrees(np.arctan2(up[0], up[1])) % 360
    metres = (w * np.hypot(*across) + h * np.hypot(*down)) / 2
    # A heading of -1e-15 degrees comes to 360 by rounding.
    heading[heading >= 360] = 0
    columns = (left, top, w, h, lat, lon, heading, metres, flipped)
    return [GridTile(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


def _scale(locate: Locate, x: Values, y: Values) -> tuple[Values, Values]:
    """Metres east and north [2, N] on the ground of a pixel to the right, and of one down, at the points (x, y)."""
    # Half a pixel would drown in the rounding of degrees: a map of centimetres has steps of 1e-7 degrees.
    reach = 8.0
    (west, east), (above, below) = (
        [locate(x + side * reach * along, y + side * reach * (1 - along)) for side in (-1, 1)] for along in (1, 0)
    )
    across = np.stack(displacement(*west, *east)) / (2 * reach)
    down = np.stack(displacement(*above, *below)) / (2 * reach)
    shear = np.abs((across * down).sum(axis=0)) / (np.hypot(*across) * np.hypot(*down))
    if not shear.max() <= _LARGEST_SHEAR:
        raise DataError(
            "The map's rows and columns are not at right angles on the ground: tiles would be sheared. Warp it first, "
            "for example: rio warp MAP NEW.tif --dst-crs EPSG:3857"
        )
    return across, down
