"""Distances on the Earth's sphere."""

from dataclasses import dataclass
from math import asin, cos, degrees, isfinite, radians, sin

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geodtr.runtime.errors import ConfigError

EARTH_RADIUS = 6_371_008.8
"""Mean radius in metres (IUGG)."""


def distance(lat_a: ArrayLike, lon_a: ArrayLike, lat_b: ArrayLike, lon_b: ArrayLike) -> NDArray[np.float64]:
    """Great-circle distance in metres between places in degrees (haversine formula); broadcasts."""
    a, b, c, d = (np.radians(np.asarray(value, np.float64)) for value in (lat_a, lon_a, lat_b, lon_b))
    half = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(1, half))), np.float64)


@dataclass(frozen=True, slots=True)
class Box:
    """Places between two parallels and two meridians, in degrees. Where `west` is larger than `east`, the box crosses
    the antimeridian (RFC 7946, 5.2).
    """

    south: float
    north: float
    west: float
    east: float


@dataclass(frozen=True, slots=True)
class Near:
    """Within `radius` metres of a place in degrees (WGS 84): what a GNSS fix says before an image is looked at.

    Raises ConfigError when a value is not finite or out of range.
    """

    lat: float
    lon: float
    radius: float

    def __post_init__(self) -> None:
        if not (abs(self.lat) <= 90 and abs(self.lon) <= 180):
            raise ConfigError(
                f"A place at latitude {self.lat}, longitude {self.lon} is not on Earth: allowed are -90 to 90 and "
                "-180 to 180 degrees."
            )
        if not (isfinite(self.radius) and self.radius > 0):
            raise ConfigError(f"A radius of {self.radius} m holds no place; it must be above 0 and finite.")

    @property
    def box(self) -> Box:
        """A box that holds every place within, for an index that knows no distances.

        Source: the extreme meridians of a spherical cap lie asin(sin(r) / cos(lat)) from its centre's.
        """
        # The margin is for rounding, here and in `distance`.
        angle = degrees(self.radius / EARTH_RADIUS) + 1e-6
        south, north = self.lat - angle, self.lat + angle
        if south <= -90 or north >= 90:
            return Box(max(south, -90.0), min(north, 90.0), -180.0, 180.0)
        aside = degrees(asin(min(1.0, sin(radians(angle)) / cos(radians(self.lat))))) + 1e-6
        west, east = self.lon - aside, self.lon + aside
        return Box(south, north, west + 360 if west < -180 else west, east - 360 if east > 180 else east)

    def holds(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the places [N] in degrees lie within; those that are NaN do not."""
        # Most places are ruled out by their latitude alone, at a fraction of the cost; the margin is for rounding.
        held = np.asarray(np.abs(lat - self.lat) <= np.degrees(self.radius / EARTH_RADIUS) + 1e-9)
        held[held] = distance(self.lat, self.lon, lat[held], lon[held]) <= self.radius
        return held


def east_north(
    lat: ArrayLike, lon: ArrayLike, lat_0: ArrayLike, lon_0: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres east and north of `lat_0`, `lon_0` to places in degrees, the short way round; broadcasts.

    A local equirectangular map that is true along the parallel of `lat_0`: what `moved` undoes.
    """
    lat, lon, lat_0, lon_0 = (np.asarray(value, np.float64) for value in (lat, lon, lat_0, lon_0))
    north = np.radians(lat - lat_0) * EARTH_RADIUS
    east = np.radians(np.mod(lon - lon_0 + 180, 360) - 180) * EARTH_RADIUS * np.cos(np.radians(lat_0))
    return east, north


def moved(
    lat_0: ArrayLike, lon_0: ArrayLike, east: ArrayLike, north: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitudes and longitudes in degrees, so many metres east and north of `lat_0`, `lon_0`; broadcasts."""
    lat_0, lon_0, east, north = (np.asarray(value, np.float64) for value in (lat_0, lon_0, east, north))
    lat = np.clip(lat_0 + np.degrees(north / EARTH_RADIUS), -90, 90)
    # At a pole every direction is one; the limit keeps the longitude finite there.
    parallel = EARTH_RADIUS * np.maximum(np.cos(np.radians(lat_0)), 1e-9)
    return lat, np.mod(lon_0 + np.degrees(east / parallel) + 180, 360) - 180


def circular_mean(degrees: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The weighted mean of directions, 0 to 360 degrees. Source: Mardia and Jupp, Directional Statistics, 2.2."""
    angle = np.radians(degrees)
    return float(np.degrees(np.arctan2(weight @ np.sin(angle), weight @ np.cos(angle)))) % 360.0
