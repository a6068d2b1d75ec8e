"""`localize --mavlink` beside PX4's own simulator: its EKF takes what is sent, or the reason why not is named.

Skipped unless GEODTR_PX4 names the folder in which PX4 was built for the board px4_sitl.
"""

import logging
from pathlib import Path

import pytest
from px4 import ABSENT, BUILD, Px4
from simulated_flights import SEEN, SIGMA, arms_by_its_camera, flies_by, fly_north, linked, localizing, origin_near
from tiny_world import make_world

from geodtr.runtime.geodesy import distance
from geodtr.runtime.names import MavlinkMessage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BUILD is None, reason=ABSENT),
]
AGP = {"EKF2_AGP0_ID": 1, "EKF2_AGP0_CTRL": 1}
VISION = {"EKF2_EV_CTRL": 1}
NO_GNSS = {"EKF2_GPS_CTRL": 0}
"""As docs/howto/autopilot.md names them."""
both = pytest.mark.parametrize(("message", "parameters"), [("global-position-sensor", AGP), ("odometry", VISION)])
HOME = (-30.0, -15.0)
LOG = logging.getLogger(__name__)


@both
def test_a_vehicle_without_gnss_gets_its_position_by_what_its_camera_sees_and_arms(
    tmp_path: Path, message: str, parameters: dict[str, float]
) -> None:
    tiny = make_world(tmp_path)
    home = (float(tiny.lat[SEEN]), float(tiny.lon[SEEN]))
    with Px4(tmp_path, home, {**NO_GNSS, **parameters}) as vehicle:
        vehicle.set_origin(*origin_near(home))
        arms_by_its_camera(vehicle, tiny, tmp_path, message)


@both
def test_a_vehicle_that_flies_is_where_the_messages_say(
    tmp_path: Path, message: MavlinkMessage, parameters: dict[str, float]
) -> None:
    with Px4(tmp_path, HOME, {**NO_GNSS, **parameters}) as vehicle:
        vehicle.set_origin(*origin_near(HOME))
        assert flies_by(vehicle, message) < 2 * SIGMA


@both
@pytest.mark.parametrize("sigma", [SIGMA, 3.0])
def test_a_vehicle_whose_gnss_fails_in_flight_goes_on_by_the_messages(
    tmp_path: Path, message: MavlinkMessage, parameters: dict[str, float], sigma: float
) -> None:
    """Its EKF has the velocity from these positions alone, and is off by as much as they claim, or more."""
    reported = list[str]()
    with Px4(tmp_path, HOME, parameters) as vehicle:
        with linked(vehicle, message, reported, sigma=sigma):
            vehicle.take_off(15)
            fly_north(vehicle, 20)
            vehicle.set("SIM_GPS_USED", 0)
            errors = fly_north(vehicle, 200)
        LOG.info("%s, sigma %g m: %.2f m off at most without GNSS", message, sigma, max(errors))
        assert max(errors) < 3 * sigma
        assert vehicle.complaints == []
    assert reported == []


def test_without_the_messages_it_gives_up(tmp_path: Path) -> None:
    with Px4(tmp_path, HOME, {}) as vehicle:
        vehicle.take_off(15)
        fly_north(vehicle, 20)
        vehicle.set("SIM_GPS_USED", 0)
        vehicle.wait_until(lambda: vehicle.complaints != [], 60, "its failsafe")


@pytest.mark.parametrize(
    ("message", "named"), [("global-position-sensor", "EKF2_AGP0_ID is 0"), ("odometry", "EKF2_EV_CTRL is 0")]
)
def test_a_parameter_that_keeps_positions_from_being_used_is_named(
    tmp_path: Path, message: MavlinkMessage, named: str
) -> None:
    reported = list[str]()
    with Px4(tmp_path, HOME, {}) as vehicle, linked(vehicle, message, reported):
        vehicle.wait_until(lambda: bool(reported), 30, "a report")
    assert [named in line for line in reported] == [True]


def test_the_program_tracks_its_own_motion(tmp_path: Path) -> None:
    tiny = make_world(tmp_path)
    home = (float(tiny.lat[SEEN]), float(tiny.lon[SEEN]))
    with Px4(tmp_path, home, AGP) as vehicle:
        with localizing(vehicle, tiny, tmp_path, "global-position-sensor", track="mavlink"):
            heard = vehicle.wait_for("GLOBAL_POSITION_SENSOR", 90)  # PX4's own report of what it got
        assert heard.id == 1
        assert float(distance(heard.lat / 1e7, heard.lon / 1e7, *home)) < 20


def test_its_own_motion_is_tracked_in_flight(tmp_path: Path) -> None:
    reported = list[str]()
    with Px4(tmp_path, HOME, AGP) as vehicle:
        with linked(vehicle, "global-position-sensor", reported, own_odometry=True) as link:
            vehicle.take_off(15)
            before = link.sent
            errors = fly_north(vehicle, 50)
            assert link.sent - before > 20
        assert max(errors) < 3
    assert reported == []
