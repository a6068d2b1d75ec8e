"""A prior: about where one is, from a GNSS fix or a guess, and how far off that may be."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.geodesy import distance


@dataclass(frozen=True, slots=True)
class Near:
    """Within `radius` metres of `lat`, `lon` (degrees, WGS 84). Raises ConfigError naming a value out of range."""

    lat: float
    lon: float
    radius: float

    def __post_init__(self) -> None:
        for name, value, limit in (("lat", self.lat, 90), ("lon", self.lon, 180)):
            if not abs(value) <= limit:
                raise ConfigError(f"{name} is {value}; it must lie within -{limit} and {limit} degrees.")
        if not (isfinite(self.radius) and self.radius > 0):
            raise ConfigError(f"radius is {self.radius}; a number of metres above 0 is needed.")

    def rows(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.int64]:
        """The rows of places in degrees [N] that lie within; a place that is not known (NaN) does not."""
        return np.flatnonzero(distance(self.lat, self.lon, lat, lon) <= self.radius)


def parse_near(text: str) -> Near:
    """LAT,LON,RADIUS -> Near. Raises ConfigError."""
    try:
        lat, lon, radius = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{text!r} is not LAT,LON,RADIUS; three numbers are needed, for example -30.01,-15.02,500."
        ) from None
    return Near(lat, lon, radius)
