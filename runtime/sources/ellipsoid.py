"""Metres on the ellipsoid of WGS 84, for places so close together that the Earth is flat between them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

SEMI_MAJOR = 6_378_137.0
"""Metres (WGS 84)."""

_FLATTENING = 1 / 298.257223563
_E2 = _FLATTENING * (2 - _FLATTENING)

Values = NDArray[np.float64]


def metres_per_degree(lat: ArrayLike) -> tuple[Values, Values]:
    """Metres of a degree north and of a degree east at `lat` (degrees); broadcasts.

    Source: radii of curvature in the meridian, M = a (1 - e^2) / (1 - e^2 sin^2 lat)^(3/2), and in the prime vertical,
    N = a / sqrt(1 - e^2 sin^2 lat); Snyder, Map Projections: A Working Manual (USGS 1395, 1987), equations 4-18 and
    4-20.
    """
    angle = np.radians(np.asarray(lat, np.float64))
    bulge = 1 - _E2 * np.sin(angle) ** 2
    north = SEMI_MAJOR * (1 - _E2) / bulge**1.5
    east = SEMI_MAJOR / np.sqrt(bulge) * np.cos(angle)
    return np.radians(north), np.radians(east)


def displacement(lat_a: ArrayLike, lon_a: ArrayLike, lat_b: ArrayLike, lon_b: ArrayLike) -> tuple[Values, Values]:
    """Metres east and north from places a to b (degrees); broadcasts. Across the 180th meridian the short way.

    Right within 1e-5 of the distance up to some 20 km, away from the poles.
    """
    a, b, c, d = (np.asarray(value, np.float64) for value in (lat_a, lon_a, lat_b, lon_b))
    north, east = metres_per_degree((a + c) / 2)
    return ((d - b + 180) % 360 - 180) * east, (c - a) * north
