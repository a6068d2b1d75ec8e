"""What a source's tiles cover: the numbers that tell a map with holes from a map without."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geodtr.runtime.geodesy import (
    SEMI_MAJOR,
    Values,
    circular_mean,
    earth_centred,
    local_axes,
    metres_per_degree,
    wrapped,
)
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
        return wrapped(lon - middle) + middle

    @property
    def bounds(self) -> dict[str, float]:
        """The four edges within +-180 degrees: west is larger than east where the box crosses the 180th meridian
        (RFC 7946, 5.2).
        """
        whole = self.east - self.west >= 360
        east = self.east if whole or self.east <= 180 else self.east - 360
        west, east = (-180.0, 180.0) if whole else (self.west, east)
        return {"south": self.south, "west": west, "north": self.north, "east": east}

    def wider(self, east: float, north: float) -> "Frame":
        """With so many metres more on each side; its latitudes may lie beyond the poles."""
        per_north, per_east = (float(value) for value in metres_per_degree((self.south + self.north) / 2))
        up, right = north / per_north, east / max(per_east, 1e-9)
        return Frame(self.south - up, self.west - right, self.north + up, self.east + right)

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
    x, y = _plane(lat, lon)
    return Coverage(
        tiles=len(tiles),
        positioned=len(places),
        doubled=len(places) - len(np.unique(places, axis=0)),
        frame=frame,
        width_metres=float(np.ptp(x)),
        height_metres=float(np.ptp(y)),
        spacing_metres=_spacing(earth_centred(lat, lon)) if len(places) > 1 else None,
        farthest_metres=_farthest(x - x.min(), y - y.min()),
    )


def positions(tiles: Sequence[Tile]) -> Values:
    """Latitudes and longitudes, float64 [N, 2], of those tiles that have them."""
    # One number after the other: a list of millions of pairs would take ten times the memory.
    known = (axis for tile in tiles if tile.lat is not None and tile.lon is not None for axis in (tile.lat, tile.lon))
    return np.fromiter(known, np.float64).reshape(-1, 2)


def frame_of(lat: Values, lon: Values) -> Frame:
    """The smallest frame around positions in degrees, across the 180th meridian too."""
    # The mean direction, for a mean of numbers is on the wrong side of the Earth for places about the 180th meridian.
    middle = wrapped(circular_mean(lon, np.ones_like(lon)))
    offsets = wrapped(lon - middle)
    west = middle + float(offsets.min())
    turn = 360.0 if west < -180 else 0.0
    return Frame(float(lat.min()), west + turn, float(lat.max()), middle + float(offsets.max()) + turn)


def _plane(lat: Values, lon: Values) -> tuple[Values, Values]:
    """Metres east and north, each [N], of the places' middle, along straight lines from there, at the poles as well.

    Source: the azimuthal equidistant projection, Snyder, Map Projections: A Working Manual (USGS 1395, 1987), 25, on a
    sphere: right within a per cent for maps up to 1000 km.
    """
    places = earth_centred(lat, lon)
    middle = places.mean(axis=1)
    middle_lat = np.degrees(np.arctan2(middle[2], np.hypot(middle[0], middle[1])))
    middle_lon = np.degrees(np.arctan2(middle[1], middle[0]))
    offsets = places - earth_centred(middle_lat, middle_lon)[:, None]
    east, north, _ = local_axes(middle_lat, middle_lon)
    x, y = east @ offsets, north @ offsets
    straight = np.linalg.norm(offsets, axis=0)
    arc = _along_the_ground(straight)
    flat = np.hypot(x, y)
    stretch = np.divide(arc, flat, out=np.ones_like(arc), where=flat > 0)
    return x * stretch, y * stretch


def _spacing(places: Values) -> float:
    """The median distance to the nearest other place; [3, N] as `earth_centred` gives them."""
    sample = np.unique(np.linspace(0, places.shape[1] - 1, _SAMPLE).astype(np.int64))
    nearest = np.empty(len(sample))
    for index, column in enumerate(sample):
        squares = ((places - places[:, column, None]) ** 2).sum(axis=0)
        squares[column] = np.inf
        nearest[index] = squares.min()
    return float(np.median(_along_the_ground(np.sqrt(nearest))))


def _along_the_ground(straight: Values) -> Values:
    """Metres on a sphere of what is so far in a straight line."""
    return 2 * SEMI_MAJOR * np.arcsin(np.minimum(1, straight / (2 * SEMI_MAJOR)))


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
