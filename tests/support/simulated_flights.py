"""Flights of a simulated vehicle beside a link of this project, and the program beside one that stands."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from threading import Event, Thread

import cv2
from ardupilot import ArduPilot
from checkout import SUPPORT
from px4 import Px4
from simulator import Simulator
from tiny_world import TinyWorld

from geodtr.runtime.autopilot.link import Link
from geodtr.runtime.autopilot.options import Gates, LinkOptions
from geodtr.runtime.geodesy import displacement, distance, moved
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.names import MavlinkMessage
from geodtr.runtime.tracking.odometry import Motion, Odometry, Step

SEEN = 35
"""The tile that a vehicle stands on."""
SPEED = 5.0
SIGMA = 10.0
"""What positions claim, metres."""


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
def localizing(vehicle: Simulator, world: TinyWorld, folder: Path, message: str, *, track: str = "-") -> Iterator[None]:
    """The program beside a vehicle that stands: its camera's view, and rows of no motion on standard input, which count
    where it is to track those.
    """
    video = folder / "stands.mkv"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (64, 16))
    for frame in range(20):
        writer.write(cv2.cvtColor(world.panorama(SEEN, seed=frame), cv2.COLOR_RGB2BGR))
    writer.release()
    to = ("--mavlink", vehicle.address, "--message", message, "--uncalibrated-sigma", "10")
    world_options = ("--bundle", world.bundle, "--gallery", world.gallery, "--json", "--track", track)
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
        process.send_signal(SIGINT)
        process.wait(30)
    assert "Traceback" not in log.read_text()


@contextmanager
def linked(
    vehicle: Simulator,
    message: MavlinkMessage,
    reported: list[str],
    *,
    own_odometry: bool = False,
    sigma: float = SIGMA,
) -> Iterator[Link]:
    """A link whose tracker is right and claims a sigma: each row of odometry, the autopilot's own or the true one, is
    answered with where the vehicle is.
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
            link.send(Waypoint("tracking", None, row.time, *vehicle.truth, 0.0, 1.2 * sigma, 2 * sigma))

    options = LinkOptions(vehicle.address, message, gates=Gates(uncalibrated_sigma=sigma))
    with Link(options, track=True, report=reported.append) as link:
        tracker = Thread(target=track, args=(link,), daemon=True)
        tracker.start()
        try:
            yield link
        finally:
            closed.set()
            tracker.join(2)  # its next row; none comes where the autopilot has no motion


def arms_by_its_camera(vehicle: ArduPilot | Px4, world: TinyWorld, folder: Path, message: str) -> None:
    """A vehicle that stands on the tile SEEN, without GNSS, gets its position by what its camera sees, and arms."""
    with localizing(vehicle, world, folder, message):
        vehicle.arm()
        assert off(vehicle) < 5
    assert vehicle.complaints == []


def flies_by(vehicle: ArduPilot | Px4, message: MavlinkMessage) -> float:
    """Fly 100 m on these messages alone, and check that nothing is reported. Returns the largest error in metres."""
    reported = list[str]()
    with linked(vehicle, message, reported):
        vehicle.take_off(15)
        errors = fly_north(vehicle, 100)
    logging.getLogger(__name__).info("%s: %.2f m off at most", message, max(errors))  # --log-cli-level=INFO
    assert vehicle.complaints == []
    assert reported == []
    return max(errors)
