"""A position as the MAVLink messages that autopilots fuse: values in, a message out.

Knows units and fields; knows nothing of links, clocks or of how a position was found. pymavlink (extra `mavlink`) is
imported inside the calls.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geodtr.runtime.geodesy import wrapped
from geodtr.runtime.installation import needing
from geodtr.runtime.names import MavlinkMessage

RATES: Mapping[MavlinkMessage, float] = {
    "global-position-sensor": 5.0,
    "gps-input": 5.0,
    "odometry": 30.0,
    "external-position": 1.0,
}
"""Messages a second by default: what ArduPilot (GPS_INPUT 5 to 10, ODOMETRY 4 or more) and PX4 (ODOMETRY 30 to 50) ask
for; a command that resets a position is not for every moment."""

SENSOR = 1
"""The id in GLOBAL_POSITION_SENSOR, and so one of PX4's EKF2_AGP0_ID to EKF2_AGP3_ID, where 0 is no sensor."""

_GPS_EPOCH, _LEAP_SECONDS, _WEEK = 315_964_800, 18, 604_800  # GPS time is ahead of UTC by 18 s since 2017
_COMMAND_WRAP = 36_000.0  # seconds after which a command's time, a float32, starts at 0 again
# Claimed, because ArduPilot takes no GPS with fewer than 6 satellites and does not arm with an HDOP above 1.4. Its
# sigma states how good a position is.
_SATELLITES, _HDOP = 10, 1.0
_ATTITUDE_VARIANCE = 1.0  # rad²: the attitude is the autopilot's own and must not be fused


@dataclass(frozen=True, slots=True)
class Position:
    """Degrees (WGS 84), `sigma` metres (standard deviation of each horizontal axis), `age` seconds since it held.

    `reset_counter` (0 to 255) changes where the position is not continuous with the one before.
    """

    lat: float
    lon: float
    sigma: float
    age: float = 0.0
    reset_counter: int = 0
    reliable: bool = True


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a message is sent: microseconds of the autopilot's clock since it booted (of Unix time, where that clock is
    not known), and seconds since 1970 where the autopilot knows them.
    """

    usec: int
    unix: float | None = None


def require_pymavlink() -> Any:
    """MAVLink 2's common messages. Raises MissingDependency without pymavlink."""
    with needing("MAVLink needs pymavlink", "mavlink"):
        from pymavlink.dialects.v20 import common
    return common


def global_position_sensor(position: Position, stamp: Stamp, system: int, component: int) -> Any:
    """GLOBAL_POSITION_SENSOR (296), for PX4's EKF2_AGP; no altitude is claimed."""
    from pymavlink.dialects.v20 import common

    return common.MAVLink_global_position_sensor_message(
        target_system=system,
        target_component=component,
        id=SENSOR,
        time_usec=stamp.usec,
        processing_time=round(position.age * 1e6),
        source=common.GLOBAL_POSITION_SRC_VISION,
        flags=0 if position.reliable else common.GLOBAL_POSITION_UNHEALTHY,
        lat=_deg_e7(position.lat),
        lon=_deg_e7(position.lon),
        alt_ellipsoid=math.nan,
        alt=math.nan,
        eph=position.sigma,
        epv=math.nan,
    )


def gps_input(position: Position, stamp: Stamp) -> Any:
    """GPS_INPUT (232) of a receiver that knows neither altitude nor velocity. The week is 0, unknown, where the
    autopilot does not know the date: this computer's clock must not become the autopilot's.
    """
    from pymavlink.dialects.v20 import common

    week, week_ms = (0, 0) if stamp.unix is None else _gps_time(stamp.unix - position.age)
    unknown = ("ALT", "VDOP", "VEL_HORIZ", "VEL_VERT", "SPEED_ACCURACY", "VERTICAL_ACCURACY")
    return common.MAVLink_gps_input_message(
        time_usec=max(0, stamp.usec - round(position.age * 1e6)),
        gps_id=0,
        ignore_flags=sum(getattr(common, f"GPS_INPUT_IGNORE_FLAG_{name}") for name in unknown),
        time_week_ms=week_ms,
        time_week=week,
        fix_type=3,
        lat=_deg_e7(position.lat),
        lon=_deg_e7(position.lon),
        alt=0.0,
        hdop=_HDOP,
        vdop=65535.0,
        vn=0.0,
        ve=0.0,
        vd=0.0,
        speed_accuracy=0.0,
        horiz_accuracy=position.sigma,
        vert_accuracy=0.0,
        satellites_visible=_SATELLITES,
        yaw=0,
    )


def odometry(
    position: Position,
    stamp: Stamp,
    origin: tuple[float, float],
    attitude: tuple[float, float, float],
    down: float,
    autopilot: int,
) -> Any:
    """ODOMETRY (331) in metres north and east of the EKF's `origin` (degrees), in the frame and on the map of
    `autopilot`, a MAV_AUTOPILOT: PX4's, or ArduPilot's for all others.

    Attitude (roll, pitch, yaw in radians) and `down` (metres below the origin) are the autopilot's own, because readers
    refuse a pose without them; their variances keep a fusion of them weak. Velocity is unknown: NaN.
    """
    from pymavlink.dialects.v20 import common

    # ArduPilot takes no other frame than FRD. PX4 turns that one by how its yaw differs from the one sent, which is
    # older: its simulator was 20 m off so, 2 km from the origin.
    on_map, frame = on_ardupilots, common.MAV_FRAME_LOCAL_FRD
    if autopilot == common.MAV_AUTOPILOT_PX4:
        on_map, frame = on_px4s, common.MAV_FRAME_LOCAL_NED
    north, east = on_map(position.lat, position.lon, origin)
    horizontal = position.sigma**2
    diagonal = (horizontal,) * 3 + (_ATTITUDE_VARIANCE,) * 3
    covariance = [diagonal[row] if row == column else 0.0 for row in range(6) for column in range(row, 6)]
    return common.MAVLink_odometry_message(
        time_usec=max(0, stamp.usec - round(position.age * 1e6)),
        frame_id=frame,
        child_frame_id=common.MAV_FRAME_BODY_FRD,
        x=north,
        y=east,
        z=down,
        q=_quaternion(*attitude),
        vx=math.nan,
        vy=math.nan,
        vz=math.nan,
        rollspeed=math.nan,
        pitchspeed=math.nan,
        yawspeed=math.nan,
        pose_covariance=covariance,
        velocity_covariance=[math.nan] * 21,
        reset_counter=position.reset_counter,
        estimator_type=common.MAV_ESTIMATOR_TYPE_VISION,
        quality=100 if position.reliable else 1,
    )


def external_position(position: Position, stamp: Stamp, system: int, component: int) -> Any:
    """MAV_CMD_EXTERNAL_POSITION_ESTIMATE (43003) as a COMMAND_INT, the only form that ArduPilot takes it in."""
    from pymavlink.dialects.v20 import common

    return common.MAVLink_command_int_message(
        target_system=system,
        target_component=component,
        frame=common.MAV_FRAME_GLOBAL,
        command=common.MAV_CMD_EXTERNAL_POSITION_ESTIMATE,
        current=0,
        autocontinue=0,
        param1=stamp.usec / 1e6 % _COMMAND_WRAP,
        param2=position.age,
        param3=position.sigma,
        param4=0.0,
        x=_deg_e7(position.lat),
        y=_deg_e7(position.lon),
        z=math.nan,
    )


def _deg_e7(degrees: float) -> int:
    return round(degrees * 1e7)


def _gps_time(unix: float) -> tuple[int, int]:
    """GPS week, and milliseconds since it began."""
    milliseconds = round((unix - _GPS_EPOCH + _LEAP_SECONDS) * 1000)
    return divmod(milliseconds, _WEEK * 1000)


def _quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """w, x, y, z of the rotation by yaw, then pitch, then roll (Tait-Bryan, z-y'-x'')."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(angle / 2), math.sin(angle / 2)) for angle in (roll, pitch, yaw))
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


# The flat maps on which autopilots count metres from the origin of their EKF: both take the Earth for a sphere. Metres
# of the ellipsoid are no use there: at 30 degrees of latitude ArduPilot's are 0.4 % longer northwards, and so a place
# 2 km from the origin would be taken for one 8 m away.
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
