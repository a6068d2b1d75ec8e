"""What a source's tiles cover: the numbers that tell a map with holes from a map without."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geodtr.runtime.geodesy import Values, displacement, metres_per_degree
from geodtr.runtime.sources.tile import Tile

_SAMPLE = 256
"""Tiles whose nearest neighbour is looked for, spread over the source."""

_CELLS = 256
"""Cells along the longer side of the extent when holes are looked for."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The box of latitudes and longitudes (degrees) about some places; `east` is beyond 180 where the box crosses the
    180th meridian.
    """

    south: float
    west: float
    north: float
    east: float

    def metres(self, lat: Values, lon: Values) -> tuple[Values, Values]:
        """Metres east of `west` and north of `south`, [N], at the scale of the box's middle: within two per cent for
        boxes up to some 100 km between the 60th parallels.
        """
        north, east = metres_per_degree((self.south + self.north) / 2)
        return (self.west_of(lon) - self.west) * east, (lat - self.south) * north

    def west_of(self, lon: Values) -> Values:
        """The longitudes counted on from `west`, across the 180th meridian too."""
        middle = (self.west + self.east) / 2
        return (lon - middle + 180) % 360 - 180 + middle

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in metres, in the box's middle."""
        x, y = self.metres(np.array([self.north]), np.array([self.east]))
        return float(x[0]), float(y[0])


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many `tiles` there are, how many of them are `positioned`, and where their centres lie.

    `spacing_metres` is the median distance to the nearest other tile (of up to 256 tiles spread over the source);
    `farthest_metres` how far a place within the frame can be from the nearest tile, right within a 256th of the frame:
    0.7 times the spacing for a square grid without holes. `doubled` tiles lie exactly where an earlier one does.
    `frame` is None where no tile has a position, `spacing_metres` where only one has.
    """

    tiles: int
    positioned: int
    doubled: int = 0
    frame: Frame | None = None
    width_metres: float = 0
    height_metres: float = 0
    spacing_metres: float | None = None
    farthest_metres: float = 0


def measure(tiles: Sequence[Tile]) -> Coverage:
    """Measure what `tiles` cover."""
    places = positions(tiles)
    if not len(places):
        return Coverage(len(tiles), 0)
    lat, lon = places.T
    frame = frame_of(lat, lon)
    x, y = frame.metres(lat, lon)
    width, height = frame.size
    return Coverage(
        tiles=len(tiles),
        positioned=len(places),
        doubled=len(places) - len(np.unique(places, axis=0)),
        frame=frame,
        width_metres=width,
        height_metres=height,
        spacing_metres=_spacing(lat, lon, x, y) if len(places) > 1 else None,
        farthest_metres=_farthest(x, y),
    )


def positions(tiles: Sequence[Tile]) -> Values:
    """Latitudes and longitudes, float64 [N, 2], of those tiles that have them."""
    known = [(tile.lat, tile.lon) for tile in tiles if tile.lat is not None and tile.lon is not None]
    return np.array(known, np.float64).reshape(-1, 2)


def frame_of(lat: Values, lon: Values) -> Frame:
    # The mean direction, for a mean of numbers is on the wrong side of the Earth for places about the 180th meridian.
    angles = np.radians(lon)
    middle = float(np.degrees(np.arctan2(np.sin(angles).sum(), np.cos(angles).sum())))
    offsets = (lon - middle + 180) % 360 - 180
    west = middle + float(offsets.min())
    turn = 360.0 if west < -180 else 0.0
    return Frame(float(lat.min()), west + turn, float(lat.max()), middle + float(offsets.max()) + turn)


def _spacing(lat: Values, lon: Values, x: Values, y: Values) -> float:
    sample = np.unique(np.linspace(0, len(lat) - 1, _SAMPLE).astype(np.int64))
    nearest = np.empty_like(sample)
    for index, row in enumerate(sample):
        squares = (x - x[row]) ** 2 + (y - y[row]) ** 2
        squares[row] = np.inf
        nearest[index] = squares.argmin()
    # The plane is good enough to find the neighbour, and its distance is measured where the two are.
    return float(np.median(np.hypot(*displacement(lat[sample], lon[sample], lat[nearest], lon[nearest]))))


def _farthest(x: Values, y: Values) -> float:
    """The largest distance of a cell of a grid over the places from the nearest cell that holds one, in metres.

    Source: the exact distance transform, along columns and then along rows, of Felzenszwalb and Huttenlocher (Theory of
    Computing 8, 2012), without their speed-up, which so small a grid does not need.
    """
    cell = max(x.max(), y.max()) / _CELLS
    if cell == 0:
        return 0.0
    columns, rows = (np.rint(values / cell).astype(np.int64) for values in (x, y))
    taken = np.zeros((rows.max() + 1, columns.max() + 1), bool)
    taken[rows, columns] = True
    height, width = taken.shape
    number = np.arange(height)[:, None]
    below = np.maximum.accumulate(np.where(taken, number, -np.inf), axis=0)
    above = np.minimum.accumulate(np.where(taken, number, np.inf)[::-1], axis=0)[::-1]
    along = np.minimum(number - below, above - number) ** 2
    offsets = np.arange(width)
    nearest = np.full(taken.shape, np.inf)
    for column in range(width):
        np.minimum(nearest, along[:, column, None] + (offsets - column) ** 2, out=nearest)
    return float(np.sqrt(nearest.max()) * cell)
