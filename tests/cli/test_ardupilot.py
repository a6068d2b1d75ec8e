"""`localize --mavlink` beside ArduPilot's own simulator: its EKF takes what is sent, or states why not.

Skipped unless GEODTR_ARDUPILOT names the simulator, an arducopter of the board sitl.
"""

import logging
from pathlib import Path

import pytest
from ardupilot import ABSENT, BINARY, ArduPilot
from pymavlink.dialects.v20 import ardupilotmega as dialect
from simulated_flights import SEEN, arms_by_its_camera, flies_by, fly_north, linked, off, origin_near
from tiny_world import make_world

from geodtr.runtime.names import MavlinkMessage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BINARY is None, reason=ABSENT),
]
NO_GNSS = {"SIM_GPS1_ENABLE": 0, "EK3_SRC1_VELXY": 0, "EK3_SRC1_VELZ": 0}
GPS_INPUT = {**NO_GNSS, "GPS1_TYPE": 14, "EK3_GPS_CHECK": 23}
ODOMETRY = {**NO_GNSS, "GPS1_TYPE": 0, "VISO_TYPE": 1, "EK3_SRC1_POSXY": 6}
"""As docs/howto/autopilot.md names them."""
both = pytest.mark.parametrize(("message", "parameters"), [("gps-input", GPS_INPUT), ("odometry", ODOMETRY)])


@both
def test_a_vehicle_without_gnss_gets_its_position_by_what_its_camera_sees_and_arms(
    tmp_path: Path, message: str, parameters: dict[str, float]
) -> None:
    tiny = make_world(tmp_path)
    home = (float(tiny.lat[SEEN]), float(tiny.lon[SEEN]))
    with ArduPilot(tmp_path, home, parameters) as vehicle:
        if message == "odometry":
            vehicle.set_origin(*origin_near(home))
        arms_by_its_camera(vehicle, tiny, tmp_path, message)


@both
def test_a_vehicle_that_flies_is_where_the_messages_say(
    tmp_path: Path, message: MavlinkMessage, parameters: dict[str, float]
) -> None:
    home = (-30.0, -15.0)
    with ArduPilot(tmp_path, home, parameters) as vehicle:
        if message == "odometry":
            vehicle.set_origin(*origin_near(home))
        assert flies_by(vehicle, message) < 2


def test_parameters_that_keep_positions_from_being_used_are_named(tmp_path: Path) -> None:
    reported = list[str]()
    with ArduPilot(tmp_path, (-30.0, -15.0), {}) as vehicle, linked(vehicle, "odometry", reported):
        vehicle.wait_until(lambda: len(reported) >= 2, 30, "reports")
    assert "VISO_TYPE is 0" in reported[0]
    assert "EK3_SRC1_POSXY is 3, and no other set of sources" in reported[1]


def test_a_vehicle_whose_gnss_fails_in_flight_goes_on_by_the_messages(tmp_path: Path) -> None:
    second = {"POSXY": 6, "VELXY": 0, "VELZ": 0, "POSZ": 1, "YAW": 1}
    parameters = {"VISO_TYPE": 1} | {f"EK3_SRC2_{axis}": value for axis, value in second.items()}
    home, reported = (-30.0, -15.0), list[str]()
    with ArduPilot(tmp_path, home, parameters) as vehicle:
        with linked(vehicle, "odometry", reported):
            vehicle.take_off(15)
            fly_north(vehicle, 20)
            vehicle.set("SIM_GPS1_ENABLE", 0)
            vehicle.command(dialect.MAV_CMD_SET_EKF_SOURCE_SET, 2)
            errors = fly_north(vehicle, 200)
        logging.getLogger(__name__).info("%.2f m off at most without GNSS", max(errors))
        assert max(errors) < 3
        assert not [text for text in vehicle.complaints if "GPS" not in text]
    assert reported == []


def test_external_positions_are_refused_with_gnss_and_taken_without(tmp_path: Path) -> None:
    reported = list[str]()
    with ArduPilot(tmp_path, (-30.0, -15.0), {}) as vehicle:
        vehicle.take_off(15)
        with linked(vehicle, "external-position", reported, own_odometry=True):
            vehicle.wait_until(lambda: len(reported) > 0, 30, "a refusal")
            vehicle.set("SIM_GPS1_ENABLE", 0)
            vehicle.wait_until(lambda: len(reported) > 1, 15, "its consent")
        assert off(vehicle) < 5
    assert "MAV_RESULT_FAILED" in reported[0]
    assert "takes external positions now" in reported[1]
