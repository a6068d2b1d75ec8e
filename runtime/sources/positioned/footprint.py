"""A tile's footprint: the corners of its ground, and the centre, heading and scale that they come to."""

from dataclasses import dataclass
from math import atan2, degrees
from pathlib import Path

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.geodesy import displacement, distance, wrapped
from geodtr.runtime.images.decode import image_size
from geodtr.runtime.sources.tile import Position, check_position

EDGES = ("south", "west", "north", "east")
"""What `Footprint.north_up` takes."""

Corner = tuple[float, float]
"""Latitude and longitude in degrees."""

_LARGEST_STRETCH = 1.25
"""How many times longer on the ground a pixel may be one way than the other: corners that were taken for others, or
latitude for longitude, are rarely within it.
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The corners of an image's ground, as it is seen: above left, above right, below right, below left."""

    above_left: Corner
    above_right: Corner
    below_right: Corner
    below_left: Corner

    @classmethod
    def north_up(cls, south: float, west: float, north: float, east: float, where: str) -> "Footprint":
        """Of an image whose upper edge is a parallel. `west` is larger than `east` across the 180th meridian.

        Raises DataError, beginning with `where`, when an edge is out of range or the box holds nothing.
        """
        for lat, lon in ((south, west), (north, east)):
            check_position(lat, lon, where)
        if not south < north or west == east:
            raise DataError(
                f"{where}: its corners give south {south:g}, north {north:g}, west {west:g}, east {east:g}; south must "
                "be below north, and west another than east. Name the corners as they are."
            )
        return cls((north, west), (north, east), (south, east), (south, west))

    @property
    def centre(self) -> Corner:
        """The middle between the four corners, in degrees."""
        corners = (self.above_left, self.above_right, self.below_right, self.below_left)
        first = self.above_left[1]
        # Longitudes are counted on from the first, for a box may cross the 180th meridian.
        lon = first + sum(wrapped(corner[1] - first) for corner in corners) / 4
        return sum(corner[0] for corner in corners) / 4, wrapped(lon)

    @property
    def heading(self) -> float:
        """Where the upper edge points, in degrees clockwise from north."""
        left, right = (
            displacement(*self.below_left, *self.above_left),
            displacement(*self.below_right, *self.above_right),
        )
        return degrees(atan2(left[0] + right[0], left[1] + right[1])) % 360

    def position(self, image: Path, where: str) -> Position:
        """The centre, the heading, and the metres of a pixel by the size of `image`: None where it cannot be read.

        Raises DataError, beginning with `where`, when the image's shape is another than the footprint's.
        """
        lat, lon = self.centre
        try:
            scale = self._metres_per_pixel(image, where)
        except ImageError:
            scale = None  # reading the tile reports why
        return Position(lat, lon, self.heading, scale)

    def _metres_per_pixel(self, image: Path, where: str) -> float:
        height, width = image_size(image)
        across = float(distance(*self.above_left, *self.above_right) + distance(*self.below_left, *self.below_right))
        down = float(distance(*self.above_left, *self.below_left) + distance(*self.above_right, *self.below_right))
        x, y = across / 2 / width, down / 2 / height
        if not max(x, y) <= _LARGEST_STRETCH * min(x, y):
            raise DataError(
                f"{where}: its corners are {across / 2:.0f} m x {down / 2:.0f} m apart, and {image.name} has "
                f"{width} x {height} pixels: one does not fit the other. Check which corner is which, and which number "
                "is the latitude."
            )
        return (x + y) / 2
