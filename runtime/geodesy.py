"""Distances on the Earth's sphere."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS = 6_371_008.8
"""Mean radius in metres (IUGG)."""


def distance(lat_a: ArrayLike, lon_a: ArrayLike, lat_b: ArrayLike, lon_b: ArrayLike) -> NDArray[np.float64]:
    """Great-circle distance in metres between places in degrees (haversine formula); broadcasts."""
    a, b, c, d = (np.radians(np.asarray(value, np.float64)) for value in (lat_a, lon_a, lat_b, lon_b))
    half = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(1, half))), np.float64)
