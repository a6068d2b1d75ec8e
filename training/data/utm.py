"""Universal Transverse Mercator back to degrees, for data sets that state metres of a zone.

Source: Krüger's series in the third flattening to its fourth power (Karney, Transverse Mercator with an accuracy of a
few nanometers, Journal of Geodesy, 2011, equations 7 to 11 and 36), on the WGS 84 ellipsoid.
"""

from math import asin, asinh, atan2, atanh, cos, cosh, degrees, hypot, nan, sin, sinh, sqrt, tanh

_FLATTENING = 1 / 298.257223563
_N = _FLATTENING / (2 - _FLATTENING)
_RADIUS = 6_378_137.0 / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
"""Of the circle that is as long as a meridian, in metres."""
_BETA = (
    _N / 2 - 2 / 3 * _N**2 + 37 / 96 * _N**3 - _N**4 / 360,
    _N**2 / 48 + _N**3 / 15 - 437 / 1440 * _N**4,
    17 / 480 * _N**3 - 37 / 840 * _N**4,
    4397 / 161280 * _N**4,
)
_ECCENTRICITY = sqrt(_FLATTENING * (2 - _FLATTENING))
_SCALE, _FALSE_EAST, _FALSE_NORTH = 0.9996, 500_000.0, 10_000_000.0


def to_degrees(east: float, north: float, zone: int, *, southern: bool) -> tuple[float, float]:
    """Latitude and longitude in degrees of a place of a zone (1 to 60), to a millimetre within the zone; NaN where the
    metres are beyond any.
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
    isometric = conformal
    for _ in range(6):
        isometric = conformal + _ECCENTRICITY * atanh(_ECCENTRICITY * tanh(isometric))
    return degrees(asin(tanh(isometric))), 6.0 * zone - 183 + degrees(atan2(sinh(eta), cos(xi)))
