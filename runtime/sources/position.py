"""A position that somebody stated, checked before anything believes it."""

from dataclasses import dataclass
from math import isfinite

from geodtr.runtime.errors import DataError


@dataclass(frozen=True, slots=True)
class Position:
    """Degrees, WGS 84. `heading` is where the tile's upper edge points, clockwise from north, 0 to 360, if known."""

    lat: float
    lon: float
    heading: float | None = None


def check_position(lat: float, lon: float, where: str, heading: float | None = None) -> Position:
    """The position, its heading brought into 0 to 360 degrees.

    Raises DataError, beginning with `where`, when a value is no finite number or lies outside +-90, +-180 or +-360.
    """
    for name, value, limit in (("lat", lat, 90), ("lon", lon, 180), ("heading", heading, 360)):
        if value is not None and not (isfinite(value) and abs(value) <= limit):
            raise DataError(f"{where}: {name} is {value:g}; it must lie within -{limit} and {limit} degrees.")
    return Position(lat, lon, None if heading is None else heading % 360)
