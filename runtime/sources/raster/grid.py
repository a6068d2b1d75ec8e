"""How a map is cut into tiles of a ground size: windows of whole pixels, spread evenly over all of it.

Knows where pixels lie on the Earth; knows nothing of files or colours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import DataError
from geodtr.runtime.geodesy import Values, earth_centred, local_axes
from geodtr.runtime.sources.tile import MAX_TILES

_SAMPLES = 257
"""Points at which a line across the map is measured: the scale of a projection changes slowly."""

_SLACK = 0.005
"""The share of the map's length that may be missing, or left over: a sheet of a round size in its projection's metres,
which differ from metres on the ground by a part in a thousand, is cut as its owner expects.
"""

_LARGEST_SHEAR = 0.02
"""Cosine of the angle between a map's rows and columns on the ground."""

_CELLS = 9
"""A side, in whose middles that angle is measured."""

_REACH = 8.0
"""Pixels to either side over which a pixel's size is measured: half a pixel would drown in the rounding of degrees, for
a map of centimetres has steps of 1e-7 degrees.
"""


Locate = Callable[[Values, Values], tuple[Values, Values]]
"""Where points of the map lie: columns and rows in pixels (0, 0 is the corner of the first one), float64 [N], to
latitude and longitude in degrees, WGS 84, float64 [N].
"""


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


@dataclass(frozen=True, slots=True, eq=False)
class Grid(Sequence[GridTile]):
    """Tiles as columns, each an array [N] named as GridTile's: some 70 bytes a tile, of which there may be millions."""

    column: NDArray[np.int64]
    row: NDArray[np.int64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    lat: Values
    lon: Values
    heading: Values
    metres: Values
    flipped: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> GridTile: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any]) -> "Grid": ...
    def __getitem__(self, index: int | slice | NDArray[Any]) -> "GridTile | Grid":
        """A tile, or some of them: by a slice, an array of numbers or a mask."""
        columns = [getattr(self, each.name)[index] for each in fields(self)]
        return GridTile(*(value.item() for value in columns)) if isinstance(index, int) else Grid(*columns)


def joined(grids: Sequence[Grid]) -> Grid:
    """Several grids of one map, one behind the other. Raises DataError when they come to more than MAX_TILES."""
    if sum(map(len, grids)) > MAX_TILES:
        raise DataError(f"Tiles of all sizes would be more than {MAX_TILES:,}. Ask for smaller overlaps.")
    return Grid(*(np.concatenate([getattr(grid, each.name) for grid in grids]) for each in fields(Grid)))


def lay_out(width: int, height: int, locate: Locate, tile_metres: float, stride_metres: float) -> Grid:
    """Tiles of `tile_metres` on the ground over a map of so many pixels, by rows; neighbours' centres at most
    `stride_metres` apart (a little more where half a per cent of the map would ask for one more).

    Metres are true ones on the ellipsoid, measured in place: the scale of Web Mercator, or of degrees, changes within a
    map. Windows are whole pixels, so that a tile's size is right within half a pixel a side, and nothing is resampled
    that need not be. The outer tiles end with the map.

    Raises DataError when the map is smaller than a tile, or would come to more than MAX_TILES.
    """
    middle = np.full(_SAMPLES, width / 2)
    down, across = np.linspace(0, height, _SAMPLES), np.linspace(0, width, _SAMPLES)
    centres_down = _spread(down, locate(middle, down), tile_metres, stride_metres)
    rows = list[Values]()
    for row in centres_down:
        rows.append(_spread(across, locate(across, np.full(_SAMPLES, row)), tile_metres, stride_metres))
        if len(rows[-1]) * len(centres_down) > MAX_TILES:
            raise DataError(_too_many(tile_metres, stride_metres))
    x = np.concatenate([*rows, np.empty(0)])
    y = np.repeat(centres_down, [len(row) for row in rows])
    if not len(x):
        raise DataError(
            f"No tile of {tile_metres:g} m fits into the map, which is {_length(locate(middle, down)):.0f} m high and "
            f"{_length(locate(across, np.full(_SAMPLES, height / 2))):.0f} m wide in its "
            "middle. Ask for a smaller --tile-metres."
        )
    return _measure(width, height, locate, x, y, tile_metres)


def _too_many(tile: float, stride: float) -> str:
    remedy = "a smaller --overlap or a larger --stride" if stride < tile else "a larger --tile-metres"
    return f"Tiles of {tile:g} m, {stride:g} m apart, would be more than {MAX_TILES:,}. Ask for {remedy}."


def _spread(pixels: Values, places: tuple[Values, Values], tile: float, stride: float) -> Values:
    """Where tiles' centres lie on a line across the map, in its pixels: from end to end, evenly in metres."""
    metres = _distances(places)
    room, slack = metres[-1] - tile, _SLACK * metres[-1]
    if room < -slack:
        return np.empty(0)
    steps = max(0, ceil((room - slack) / stride))
    if steps > MAX_TILES:
        raise DataError(_too_many(tile, stride))
    centres = tile / 2 + np.linspace(0, room, steps + 1) if steps else np.array([metres[-1] / 2])
    return np.interp(centres, metres, pixels)


def _distances(places: tuple[Values, Values]) -> Values:
    """Metres from the first of the places to each, along the line through them all."""
    steps = np.linalg.norm(np.diff(earth_centred(*places)), axis=0)
    return np.concatenate([np.zeros(1), np.cumsum(steps)])


def _length(places: tuple[Values, Values]) -> float:
    return float(_distances(places)[-1])


def _measure(width: int, height: int, locate: Locate, x: Values, y: Values, tile_metres: float) -> Grid:
    """The windows about the centres (x, y), each as large as the ground is there."""
    across, down = _scale(locate, x, y)
    wide, high = (np.linalg.norm(side, axis=0) for side in (across, down))
    w = np.clip(np.rint(tile_metres / wide), 1, width).astype(np.int64)
    h = np.clip(np.rint(tile_metres / high), 1, height).astype(np.int64)
    left = np.clip(np.rint(x - w / 2), 0, width - w).astype(np.int64)
    top = np.clip(np.rint(y - h / 2), 0, height - h).astype(np.int64)
    lat, lon = locate(left + w / 2, top + h / 2)
    east, north, zenith = local_axes(lat, lon)
    # Seen from above, rows run to the right of columns; the other way round the map is stored from below.
    flipped = (np.cross(across, down, axis=0) * zenith).sum(axis=0) > 0
    up = np.where(flipped, 1, -1) * down
    heading = np.degrees(np.arctan2((up * east).sum(axis=0), (up * north).sum(axis=0))) % 360
    metres = (w * wide + h * high) / 2
    # A heading of -1e-15 degrees comes to 360 by rounding.
    heading[heading >= 360] = 0
    return Grid(left, top, w, h, lat, lon, heading, metres, flipped)


def is_sheared(width: int, height: int, locate: Locate) -> bool:
    """Whether rows and columns are not at right angles on the ground somewhere: tiles would show parallelograms."""
    cells = (np.arange(_CELLS) + 0.5) / _CELLS
    x, y = (values.ravel() for values in np.meshgrid(width * cells, height * cells))
    across, down = _scale(locate, x, y, min(_REACH, width / (2 * _CELLS)), min(_REACH, height / (2 * _CELLS)))
    lengths = np.linalg.norm(across, axis=0) * np.linalg.norm(down, axis=0)
    return bool((np.abs((across * down).sum(axis=0)) > _LARGEST_SHEAR * lengths).any())


def _scale(
    locate: Locate, x: Values, y: Values, reach_x: float = _REACH, reach_y: float = _REACH
) -> tuple[Values, Values]:
    """Metres on the ground [3, N], in the axes of `earth_centred`, of a pixel to the right, and of one down, at the
    points (x, y).
    """
    west, east = (earth_centred(*locate(x + side * reach_x, y)) for side in (-1, 1))
    above, below = (earth_centred(*locate(x, y + side * reach_y)) for side in (-1, 1))
    return (east - west) / (2 * reach_x), (below - above) / (2 * reach_y)
