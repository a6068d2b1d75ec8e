"""The flat maps on which autopilots count metres from the origin of their EKF. Both take the Earth for a sphere.

Metres of the ellipsoid are no use there: at 30 degrees of latitude ArduPilot's are 0.4 % longer northwards, and so a
place 2 km from the origin would be taken for one 8 m away.
"""

import math

from geodtr.runtime.geodesy import wrapped

_ARDUPILOT_DEGREE = 111_318.845_021_450_34  # metres: LATLON_TO_M in libraries/AP_Math/definitions.h, times 1e7
_PX4_RADIUS = 6_371_000.0  # metres: CONSTANTS_RADIUS_OF_EARTH in src/lib/geo/geo.h


def on_ardupilots(lat: float, lon: float, origin: tuple[float, float]) -> tuple[float, float]:
    """Metres north and east of `origin`, all in degrees: get_distance_NE in libraries/AP_Common/Location.cpp."""
    middle = math.cos(math.radians((lat + origin[0]) / 2))
    return (lat - origin[0]) * _ARDUPILOT_DEGREE, wrapped(lon - origin[1]) * _ARDUPILOT_DEGREE * middle


def on_px4s(lat: float, lon: float, origin: tuple[float, float]) -> tuple[float, float]:
    """Metres north and east of `origin`, all in degrees: MapProjection in src/lib/geo/geo.cpp.

    Source: the azimuthal equidistant projection; Snyder, Map Projections: A Working Manual (USGS 1395, 1987), p. 195.
    """
    (sin_0, cos_0), (sin_1, cos_1) = (
        (math.sin(angle), math.cos(angle)) for angle in map(math.radians, (origin[0], lat))
    )
    apart = math.radians(lon - origin[1])
    north = cos_0 * sin_1 - sin_0 * cos_1 * math.cos(apart)
    east = cos_1 * math.sin(apart)
    sine = math.hypot(north, east)
    angle = math.atan2(sine, sin_0 * sin_1 + cos_0 * cos_1 * math.cos(apart))
    scale = _PX4_RADIUS * (angle / sine if sine > 0 else 1.0)
    return scale * north, scale * east
