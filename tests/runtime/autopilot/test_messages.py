"""Positions as MAVLink messages: what each field is, by hand, in the bytes that a parser reads."""

import math
import struct
from typing import Any

import pytest
from pymavlink.dialects.v20 import common

from geodtr.runtime.autopilot.messages import (
    Position,
    Stamp,
    external_position,
    global_position_sensor,
    gps_input,
    odometry,
)

HERE = Position(lat=-30.0012345, lon=150.7654321, sigma=10.0, age=0.25, reset_counter=3)
ARDUPILOT, PX4 = common.MAV_AUTOPILOT_ARDUPILOTMEGA, common.MAV_AUTOPILOT_PX4
NOON = Stamp(usec=123_456_789, unix=1_700_000_000.25)


def parsed(message: Any) -> Any:
    """What a parser makes of the bytes."""
    data = message.pack(common.MAVLink(None, 7, 197))
    (read,) = common.MAVLink(None).parse_buffer(data)
    assert read.get_type() != "BAD_DATA"
    return read


def test_px4_gets_degrees_metres_and_microseconds_and_no_altitude() -> None:
    read = parsed(global_position_sensor(HERE, NOON, 7, 1))
    assert (read.lat, read.lon) == (-300012345, 1507654321)
    assert (read.source, read.flags, read.id) == (2, 0, 1)  # to PX4, 0 is no sensor
    assert (read.time_usec, read.processing_time) == (123_456_789, 250_000)
    assert (read.target_system, read.target_component) == (7, 1)
    assert read.eph == 10.0
    assert all(math.isnan(value) for value in (read.alt, read.alt_ellipsoid, read.epv))


def test_its_bytes_are_as_specified() -> None:
    data = global_position_sensor(HERE, NOON, 0, 0).pack(common.MAVLink(None, 7, 197))
    assert data[0] == 0xFD
    assert int.from_bytes(data[7:10], "little") == 296
    assert (data[5], data[6]) == (7, 197)
    # MAVLink 2 sorts fields by size and drops zeros at the end: the flags, which are last.
    payload = data[10 : 10 + data[1]].ljust(41, b"\0")
    fields = struct.unpack("<QIiiffffBBBBB", payload)
    assert fields[:4] == (123_456_789, 250_000, -300012345, 1507654321)
    assert fields[6] == 10.0
    assert fields[8:] == (0, 0, 1, 2, 0)


def test_an_unreliable_position_is_called_unhealthy() -> None:
    assert parsed(global_position_sensor(Position(1.0, 2.0, 30.0, reliable=False), NOON, 0, 0)).flags == 1


def test_gps_input_claims_a_position_and_nothing_else() -> None:
    read = parsed(gps_input(HERE, NOON))
    assert (read.lat, read.lon, read.fix_type) == (-300012345, 1507654321, 3)
    # altitude 1, vdop 4, horizontal 8 and vertical velocity 16, speed 32 and vertical accuracy 128
    assert read.ignore_flags == 1 + 4 + 8 + 16 + 32 + 128
    assert read.horiz_accuracy == 10.0
    assert read.time_usec == 123_456_789 - 250_000
    # 1,700,000,000 - 315,964,800 + 18 leap seconds = 2288 weeks and 252,818 s
    assert (read.time_week, read.time_week_ms) == (2288, 252_818_000)
    # Without these ArduPilot does not arm: its parameter GPS_HDOP_GOOD is 1.4, and it takes no fewer than 6.
    assert read.hdop < 1.4
    assert read.satellites_visible >= 6
    assert read.yaw == 0


def test_an_autopilot_without_a_date_gets_none_from_this_computer() -> None:
    read = parsed(gps_input(HERE, Stamp(5_000_000)))
    assert (read.time_week, read.time_week_ms) == (0, 0)


def test_odometry_is_in_metres_from_the_origin_with_a_triangle_of_variances() -> None:
    place = Position(0.001, 0.002, 10.0, reset_counter=3)
    read = parsed(odometry(place, NOON, (0.0, 0.0), (0, 0, math.pi / 2), -50, PX4))
    # A degree of PX4's sphere of 6371 km is 111,194.93 m.
    assert (read.x, read.y, read.z) == pytest.approx((111.19493, 222.38985, -50.0), abs=1e-3)
    assert read.q == pytest.approx([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    assert (read.frame_id, read.child_frame_id) == (1, 12)
    # Row-major, upper triangle: xx at 0, yy at 6, zz at 11, then roll, pitch and yaw at 15, 18 and 20.
    expected = [0.0] * 21
    expected[0] = expected[6] = expected[11] = 100.0
    expected[15] = expected[18] = expected[20] = 1.0
    assert list(read.pose_covariance) == expected
    assert math.isnan(read.velocity_covariance[0])
    assert math.isnan(read.vx)
    assert (read.reset_counter, read.quality, read.estimator_type) == (3, 100, 2)


@pytest.mark.parametrize(
    ("autopilot", "frame", "metres"),
    [
        # 0.01 degrees of 111,318.845 m, a degree in libraries/AP_Common/Location.cpp, and its cosine's share eastwards.
        (ARDUPILOT, 20, (1113.1885, 0.02 * 111_318.845 * math.cos(math.radians(-29.995)))),
        # By the azimuthal equidistant projection of a sphere of 6371 km, src/lib/geo/geo.cpp.
        (PX4, 1, (1111.7812, 1926.1467)),
    ],
)
def test_odometry_means_the_same_place_on_the_autopilots_own_map(
    autopilot: int, frame: int, metres: tuple[float, float]
) -> None:
    """On the ellipsoid the place is 1108.5 m north: a flight of 2 km would be 8 m off on ArduPilot's map. Its axes are
    north and east: LOCAL_NED (1) to PX4, LOCAL_FRD (20) to ArduPilot, which takes no other.
    """
    read = parsed(odometry(Position(-29.99, 150.02, 10.0), NOON, (-30.0, 150.0), (0, 0, 0), 0.0, autopilot))
    assert (read.x, read.y) == pytest.approx(metres, abs=1e-3)
    assert read.frame_id == frame


def test_odometrys_attitude_is_yaw_then_pitch_then_roll() -> None:
    read = parsed(odometry(HERE, NOON, (-30.0, 150.0), (0.1, -0.2, 0.3), 0.0, ARDUPILOT))
    w, x, y, z = read.q
    assert math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)) == pytest.approx(0.1, abs=1e-5)
    assert math.asin(2 * (w * y - z * x)) == pytest.approx(-0.2, abs=1e-5)
    assert math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)) == pytest.approx(0.3, abs=1e-5)


def test_a_command_resets_ardupilots_position() -> None:
    read = parsed(external_position(HERE, Stamp(36_000_500_000), 7, 1))
    assert read.get_type() == "COMMAND_INT"
    assert (read.command, read.frame, read.target_system, read.target_component) == (43003, 0, 7, 1)
    assert (read.x, read.y) == (-300012345, 1507654321)
    assert math.isnan(read.z)
    # Its time starts again every ten hours: a float32 holds no more.
    assert (read.param1, read.param2, read.param3) == pytest.approx((0.5, 0.25, 10.0))


@pytest.mark.parametrize(("lat", "lon"), [(90.0, 180.0), (-90.0, -180.0), (0.0, 0.0)])
def test_the_ends_of_the_earth_fit(lat: float, lon: float) -> None:
    place = Position(lat, lon, 1.0)
    for message in (global_position_sensor(place, NOON, 0, 0), gps_input(place, NOON)):
        read = parsed(message)
        assert (read.lat, read.lon) == (round(lat * 1e7), round(lon * 1e7))
    command = parsed(external_position(place, NOON, 1, 1))
    assert (command.x, command.y) == (round(lat * 1e7), round(lon * 1e7))
