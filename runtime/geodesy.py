"""The Earth: the WGS 84 ellipsoid. Distances, local maps in metres, and UTM; positions are in degrees."""

from dataclasses import dataclass
from math import asin, asinh, atan2, atanh, cos, cosh, degrees, hypot, isfinite, nan, radians, sin, sinh, sqrt, tanh
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ConfigError

Values = NDArray[np.float64]
_Degrees = TypeVar("_Degrees", float, Values)

SEMI_MAJOR = 6_378_137.0
"""Radius of the equator, metres."""
_FLATTENING = 1 / 298.257223563
_E2 = _FLATTENING * (2 - _FLATTENING)
"""The square of the eccentricity."""
_SMALLEST_RADIUS = 6_335_000.0
"""Metres, just below the smallest radius of curvature, a meridian's at the equator (6,335,439 m): no path is shorter
than the same one in degrees on a sphere of this radius."""


def distance(lat_a: ArrayLike, lon_a: ArrayLike, lat_b: ArrayLike, lon_b: ArrayLike) -> Values:
    """Geodesic distance in metres between places in degrees; broadcasts. Right within 2e-6 of the distance up to a
    third of the globe's length, within 1e-4 up to nearly opposite points.

    Source: Lambert's formula for long lines, the haversine formula on the reduced latitudes with a correction of first
    order in the flattening: W. D. Lambert, Journal of the Washington Academy of Sciences 32, 1942.
    """
    phi, lon_a, phi_b, lon_b = (np.radians(np.asarray(value, np.float64)) for value in (lat_a, lon_a, lat_b, lon_b))
    a, b = (np.arctan2((1 - _FLATTENING) * np.sin(each), np.cos(each)) for each in (phi, phi_b))
    middle, apart = np.sin((a + b) / 2) ** 2, np.sin((b - a) / 2) ** 2
    half = np.minimum(1, apart + np.cos(a) * np.cos(b) * np.sin((lon_b - lon_a) / 2) ** 2)
    angle = 2 * np.arcsin(np.sqrt(half))
    along = _share((1 - middle) * apart, half) * (angle + np.sin(angle))
    across = _share(middle * (1 - apart), 1 - half) * (angle - np.sin(angle))
    return np.asarray(SEMI_MAJOR * (angle - _FLATTENING / 2 * (along + across)), np.float64)


def within(lat_a: ArrayLike, lon_a: ArrayLike, lat_b: ArrayLike, lon_b: ArrayLike, metres: float) -> NDArray[np.bool_]:
    """Whether places in degrees are at most so many metres apart; broadcasts. Places that are NaN are not."""
    lat_a, lon_a, lat_b, lon_b = np.broadcast_arrays(lat_a, lon_a, lat_b, lon_b)
    # Most places are ruled out by their latitude alone, at a fraction of the cost; the margin is for rounding.
    held = np.asarray(np.abs(lat_a - lat_b) <= degrees(metres / _SMALLEST_RADIUS) + 1e-9)
    held[held] = distance(lat_a[held], lon_a[held], lat_b[held], lon_b[held]) <= metres
    return held


def _share(part: Values, whole: Values) -> Values:
    """`part` of `whole`, 0 of nothing."""
    return np.divide(part, whole, out=np.zeros_like(part * whole), where=whole > 0)


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
    """Within `radius` metres of a position in degrees (WGS 84), such as a GNSS fix gives before any image is searched.

    Raises ConfigError when a value is not finite or out of range.
    """

    lat: float
    lon: float
    radius: float

    def __post_init__(self) -> None:
        check_fields(self)
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
        angle = degrees(self.radius / _SMALLEST_RADIUS) + 1e-6
        south, north = self.lat - angle, self.lat + angle
        if south <= -90 or north >= 90:
            return Box(max(south, -90.0), min(north, 90.0), -180.0, 180.0)
        aside = degrees(asin(min(1.0, sin(radians(angle)) / cos(radians(self.lat))))) + 1e-6
        west, east = self.lon - aside, self.lon + aside
        return Box(south, north, west + 360 if west < -180 else west, east - 360 if east > 180 else east)

    def holds(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the places [N] in degrees lie within; those that are NaN do not."""
        return within(self.lat, self.lon, lat, lon, self.radius)


def metres_per_degree(lat: ArrayLike) -> tuple[Values, Values]:
    """Metres of a degree north and of a degree east at `lat` (degrees); broadcasts.

    Source: radii of curvature in the meridian, M = a (1 - e^2) / (1 - e^2 sin^2 lat)^(3/2), and in the prime vertical,
    N = a / sqrt(1 - e^2 sin^2 lat); Snyder, Map Projections: A Working Manual (USGS 1395, 1987), equations 4-18 and
    4-20.
    """
    angle = np.radians(np.asarray(lat, np.float64))
    bulge = 1 - _E2 * np.sin(angle) ** 2
    north = SEMI_MAJOR * (1 - _E2) / bulge**1.5
    # At a pole every direction is one; the limit keeps longitudes finite there.
    east = SEMI_MAJOR / np.sqrt(bulge) * np.maximum(np.cos(angle), 1e-9)
    return np.radians(north), np.radians(east)


def displacement(lat_a: ArrayLike, lon_a: ArrayLike, lat_b: ArrayLike, lon_b: ArrayLike) -> tuple[Values, Values]:
    """Metres east and north from places a to b (degrees); broadcasts. Across the 180th meridian the short way.

    Right within 1e-5 of the distance up to some 20 km, away from the poles.
    """
    lat_a, lat_b = np.asarray(lat_a, np.float64), np.asarray(lat_b, np.float64)
    return _between(lat_a, lon_a, lat_b, lon_b, (lat_a + lat_b) / 2)


def east_north(lat: ArrayLike, lon: ArrayLike, lat_0: ArrayLike, lon_0: ArrayLike) -> tuple[Values, Values]:
    """Metres east and north of `lat_0`, `lon_0` to places in degrees, the short way round; broadcasts.

    A local equirectangular map that is true along the parallel of `lat_0`: what `moved` undoes.
    """
    return _between(lat_0, lon_0, lat, lon, lat_0)


def _between(
    lat_a: ArrayLike, lon_a: ArrayLike, lat_b: ArrayLike, lon_b: ArrayLike, true_at: ArrayLike
) -> tuple[Values, Values]:
    """Metres east and north from places a to b by the length of a degree at the latitude `true_at`."""
    a, b, c, d = (np.asarray(value, np.float64) for value in (lat_a, lon_a, lat_b, lon_b))
    north, east = metres_per_degree(true_at)
    return wrapped(d - b) * east, (c - a) * north


def earth_centred(lat: ArrayLike, lon: ArrayLike) -> Values:
    """Places on the ellipsoid in metres from the Earth's centre, [3, N]: x towards latitude and longitude 0, z towards
    the north pole. Near the poles and the 180th meridian, where degrees mislead, it is a place like any other.

    Source: Snyder, Map Projections: A Working Manual (USGS 1395, 1987), with N as in `metres_per_degree`.
    """
    phi, lam = (np.radians(np.asarray(value, np.float64)) for value in (lat, lon))
    vertical = SEMI_MAJOR / np.sqrt(1 - _E2 * np.sin(phi) ** 2)
    return np.stack(
        [
            vertical * np.cos(phi) * np.cos(lam),
            vertical * np.cos(phi) * np.sin(lam),
            vertical * (1 - _E2) * np.sin(phi),
        ]
    )


def local_axes(lat: ArrayLike, lon: ArrayLike) -> tuple[Values, Values, Values]:
    """The unit vectors east, north and up at places in degrees, each [3, N], in the axes of `earth_centred`."""
    phi, lam = (np.radians(np.asarray(value, np.float64)) for value in (lat, lon))
    east = np.stack([-np.sin(lam), np.cos(lam), np.zeros_like(lam)])
    north = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)])
    up = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    return east, north, up


def moved(lat_0: ArrayLike, lon_0: ArrayLike, east: ArrayLike, north: ArrayLike) -> tuple[Values, Values]:
    """Latitudes and longitudes in degrees, so many metres east and north of `lat_0`, `lon_0`; broadcasts."""
    lat_0, lon_0, east, north = (np.asarray(value, np.float64) for value in (lat_0, lon_0, east, north))
    per_north, per_east = metres_per_degree(lat_0)
    return np.clip(lat_0 + north / per_north, -90, 90), wrapped(lon_0 + east / per_east)


def wrapped(degrees: _Degrees) -> _Degrees:
    """A longitude, or a difference of two, the short way round: -180 and above, below 180."""
    return (degrees + 180) % 360 - 180


def rotation_of(heading: float | None) -> tuple[float, float]:
    """z and w of the unit quaternion that rotates east to a heading, degrees clockwise from north, about the vertical:
    axes as in REP 103. East where it is unknown.
    """
    half = radians(0.0 if heading is None else 90 - heading) / 2
    return sin(half), cos(half)


def circular_mean(degrees: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The weighted mean of directions, 0 to 360 degrees. Source: Mardia and Jupp, Directional Statistics, 2.2."""
    angle = np.radians(degrees)
    return float(np.degrees(np.arctan2(weight @ np.sin(angle), weight @ np.cos(angle)))) % 360.0


_N = _FLATTENING / (2 - _FLATTENING)
_RADIUS = SEMI_MAJOR / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
"""Of the circle that is as long as a meridian, in metres."""
_BETA = (
    _N / 2 - 2 / 3 * _N**2 + 37 / 96 * _N**3 - _N**4 / 360,
    _N**2 / 48 + _N**3 / 15 - 437 / 1440 * _N**4,
    17 / 480 * _N**3 - 37 / 840 * _N**4,
    4397 / 161280 * _N**4,
)
_SCALE, _FALSE_EAST, _FALSE_NORTH = 0.9996, 500_000.0, 10_000_000.0


def utm_to_degrees(east: float, north: float, zone: int, *, southern: bool) -> tuple[float, float]:
    """Latitude and longitude in degrees of a place of a UTM zone (1 to 60), to a millimetre within the zone; NaN where
    the metres are beyond any.

    Source: Krüger's series in the third flattening to its fourth power (Karney, Transverse Mercator with an accuracy of
    a few nanometers, Journal of Geodesy, 2011, equations 7 to 11 and 36).
    """
    if not (abs(east) < 1e7 and abs(north) < 2e7):
        return nan, nan  # nowhere on Earth
    xi = (north - (_FALSE_NORTH if southern else 0.0)) / (_SCALE * _RADIUS)
    eta = (east - _FALSE_EAST) / (_SCALE * _RADIUS)
    terms = [(beta, 2 * order) for order, beta in enumerate(_BETA, 1)]
    xi, eta = (
        xi - sum(beta * sin(times * xi) * cosh(times * eta) for beta, times in terms),
        eta - sum(beta * cos(times * xi) * sinh(times * eta) for beta, times in terms),
    )
    conformal = asinh(sin(xi) / hypot(sinh(eta), cos(xi)))
    # The isometric latitude of the ellipsoid's own latitude is the sphere's; each round gains over two digits.
    isometric, eccentricity = conformal, sqrt(_E2)
    for _ in range(6):
        isometric = conformal + eccentricity * atanh(eccentricity * tanh(isometric))
    return degrees(asin(tanh(isometric))), 6.0 * zone - 183 + degrees(atan2(sinh(eta), cos(xi)))
