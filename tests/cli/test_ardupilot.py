"""`localize --mavlink` beside ArduPilot's own simulator: its EKF takes what is sent, or states why not.

Skipped unless GEODTR_ARDUPILOT names the simulator, an arducopter of the board sitl.
"""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import cv2
import pytest
from ardupilot import ABSENT, BINARY, Simulator
from checkout import SUPPORT
from pymavlink.dialects.v20 import ardupilotmega as dialect
from tiny_world import TinyWorld, make_world

from geodtr.runtime.autopilot.link import Link, LinkOptions
from geodtr.runtime.autopilot.prediction import Gates
from geodtr.runtime.geodesy import displacement, distance, moved
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.names import MavlinkMessage
from geodtr.runtime.tracking.odometry import Motion, Odometry, Step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BINARY is None, reason=ABSENT),
]
SEEN = 35
"""The tile that the vehicle stands on."""
SPEED = 5.0
NO_GNSS = {"SIM_GPS1_ENABLE": 0, "EK3_SRC1_VELXY": 0, "EK3_SRC1_VELZ": 0}
GPS_INPUT = {**NO_GNSS, "GPS1_TYPE": 14, "EK3_GPS_CHECK": 23}
ODOMETRY = {**NO_GNSS, "GPS1_TYPE": 0, "VISO_TYPE": 1, "EK3_SRC1_POSXY": 6}
"""As docs/howto/autopilot.md names them."""
both = pytest.mark.parametrize(("message", "parameters"), [("gps-input", GPS_INPUT), ("odometry", ODOMETRY)])


def off(vehicle: Simulator) -> float:
    """Metres between where its EKF has it and where it is."""
    return float(distance(*vehicle.believed, *vehicle.truth))


def fly_north(vehicle: Simulator, metres: float) -> list[float]:
    """Metres between what its EKF believes and where it is, on the way."""
    start, errors, end = vehicle.truth, list[float](), time.monotonic() + metres / SPEED + 60
    while float(distance(*start, *vehicle.truth)) < metres:
        assert time.monotonic() < end, vehicle.texts
        vehicle.fly(SPEED, 0.0)
        time.sleep(0.5)
        errors.append(off(vehicle))
    return errors


def origin_near(place: tuple[float, float]) -> tuple[float, float]:
    """2 km south of it: far enough to tell one map of the Earth from another."""
    lat, lon = moved(*place, 0.0, -2000.0)
    return float(lat), float(lon)


@contextmanager
def localizing(vehicle: Simulator, world: TinyWorld, folder: Path, message: str) -> Iterator[None]:
    """The program beside a vehicle that stands: its camera's view, and rows of no motion on standard input."""
    video = folder / "stands.mkv"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (64, 16))
    for frame in range(20):
        writer.write(cv2.cvtColor(world.panorama(SEEN, seed=frame), cv2.COLOR_RGB2BGR))
    writer.release()
    to = ("--mavlink", vehicle.address, "--message", message, "--uncalibrated-sigma", "10")
    world_options = ("--bundle", world.bundle, "--gallery", world.gallery, "--json", "--track", "-")
    line = [sys.executable, SUPPORT / "fake_camera.py", video, 10**6, "localize", "camera:0", *world_options, *to]
    closed, log = Event(), folder / "messages"
    with log.open("w") as errors, (folder / "answers").open("w") as answers:
        process = subprocess.Popen([*map(str, line)], stdin=subprocess.PIPE, stdout=answers, stderr=errors, text=True)

    def feed() -> None:
        assert process.stdin is not None
        process.stdin.write("time_unix_s,speed_m_s,yaw_rate_deg_s\n")
        while not closed.wait(0.1):
            process.stdin.write(f"{time.time()},0,0\n")
            process.stdin.flush()

    feeder = Thread(target=feed)
    feeder.start()
    try:
        yield
    finally:
        closed.set()
        feeder.join()
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert "Traceback" not in log.read_text()


@contextmanager
def linked(
    vehicle: Simulator, message: MavlinkMessage, reported: list[str], *, own_odometry: bool = False
) -> Iterator[Link]:
    """A link whose tracker is right: each row of odometry, the autopilot's own or the true one, is answered with where
    the vehicle is.
    """
    closed = Event()

    def rows() -> Iterator[Step]:
        before, then = vehicle.truth, time.monotonic()
        while not closed.wait(0.1):
            here, now = vehicle.truth, time.monotonic()
            _, north = displacement(*before, *here)
            yield Step(now, Motion(now - then, float(north), 0.0), None)
            before, then = here, now

    def track(link: Link) -> None:
        true = Odometry("truth", unix=False, images=False, steps=rows(), count=None)
        for row in (link.odometry() if own_odometry else link.follow(true, paced=False)).steps:
            if closed.is_set():
                return
            link.send(Waypoint("tracking", None, row.time, *vehicle.truth, 0.0, 12.0, 20.0))

    options = LinkOptions(vehicle.address, message, gates=Gates(uncalibrated_sigma=10.0))
    with Link(options, track=True, report=reported.append) as link:
        tracker = Thread(target=track, args=(link,), daemon=True)
        tracker.start()
        try:
            yield link
        finally:
            closed.set()


@both
def test_a_vehicle_without_gnss_gets_its_position_by_what_its_camera_sees_and_arms(
    tmp_path: Path, message: str, parameters: dict[str, float]
) -> None:
    tiny = make_world(tmp_path)
    home = (float(tiny.lat[SEEN]), float(tiny.lon[SEEN]))
    with Simulator(tmp_path, home, parameters) as vehicle:
        if message == "odometry":
            vehicle.set_origin(*origin_near(home))
        with localizing(vehicle, tiny, tmp_path, message):
            vehicle.arm()
            assert off(vehicle) < 5
        assert vehicle.complaints == []


@both
def test_a_vehicle_that_flies_is_where_the_messages_say(
    tmp_path: Path, message: MavlinkMessage, parameters: dict[str, float]
) -> None:
    home, reported = (-30.0, -15.0), list[str]()
    with Simulator(tmp_path, home, parameters) as vehicle:
        if message == "odometry":
            vehicle.set_origin(*origin_near(home))
        with linked(vehicle, message, reported):
            vehicle.take_off(15)
            errors = fly_north(vehicle, 100)
        logging.getLogger(__name__).info("%s: %.2f m off at most", message, max(errors))  # --log-cli-level=INFO
        assert max(errors) < 2
        assert vehicle.complaints == []
        assert reported == []


def test_parameters_that_keep_positions_from_being_used_are_named(tmp_path: Path) -> None:
    reported = list[str]()
    with Simulator(tmp_path, (-30.0, -15.0), {}) as vehicle, linked(vehicle, "odometry", reported):
        vehicle.wait_until(lambda: len(reported) >= 2, 30, "reports")
    assert "VISO_TYPE is 0" in reported[0]
    assert "EK3_SRC1_POSXY is 3, and no other set of sources" in reported[1]


def test_a_vehicle_whose_gnss_fails_in_flight_goes_on_by_the_messages(tmp_path: Path) -> None:
    second = {"POSXY": 6, "VELXY": 0, "VELZ": 0, "POSZ": 1, "YAW": 1}
    parameters = {"VISO_TYPE": 1} | {f"EK3_SRC2_{axis}": value for axis, value in second.items()}
    home, reported = (-30.0, -15.0), list[str]()
    with Simulator(tmp_path, home, parameters) as vehicle:
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
    with Simulator(tmp_path, (-30.0, -15.0), {}) as vehicle:
        vehicle.take_off(15)
        with linked(vehicle, "external-position", reported, own_odometry=True):
            vehicle.wait_until(lambda: len(reported) > 0, 30, "a refusal")
            vehicle.set("SIM_GPS1_ENABLE", 0)
            vehicle.wait_until(lambda: len(reported) > 1, 15, "its consent")
        assert off(vehicle) < 5
    assert "MAV_RESULT_FAILED" in reported[0]
    assert "takes external positions now" in reported[1]
