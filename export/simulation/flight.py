"""The closed loop: the vehicle goes where its autopilot steers it, and that steers by the positions that it is sent.

A vehicle follows a route. After a minute its GNSS fails. From then on the autopilot has odometry of a wrong scale, a
compass that is off, and this project's positions. A panorama is rendered at the true position, aligned by the compass,
localised near the autopilot's position, and tracked. Five times a second the prediction is packed as
GLOBAL_POSITION_SENSOR, parsed, and fused by a Kalman filter with a gate. Time is simulated; the time that localising
takes is not.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.autopilot.messages import Position, Stamp, global_position_sensor
from geodtr.runtime.autopilot.options import Gates
from geodtr.runtime.autopilot.prediction import Predictor
from geodtr.runtime.geodesy import Near, east_north
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Preprocessing
from geodtr.runtime.tracking.filter import Tracker, TrackOptions, sighted
from geodtr.runtime.tracking.odometry import Motion, Step
from geodtr.runtime.tracking.run import sighting_of
from geodtr.training.world.drive import WAY, Route, panoramas
from geodtr.training.world.regions import Region
from geodtr.training.world.terrain import World

Floats = NDArray[np.float64]
SECONDS, SPEED = 0.2, 10.0
"""Between two steps; metres a second."""
FAILS = 60.0
"""Seconds until GNSS fails."""
_SCALE_ERROR, _COMPASS_BIAS, _COMPASS_NOISE = 0.03, 2.0, 1.0  # a share, degrees, degrees
_GNSS_SIGMA, _LEAST_SIGMA = 2.0, 8.0
_ODOMETRY_SIGMA = 0.25
"""Of a step, as the autopilot takes it: the filter knows independent errors alone, and these last."""
_AHEAD, _TURN = 20.0, 30.0  # metres to the point steered to; degrees/s
_GATE, _PATIENCE = 5.0, 5.0
"""Sigmas within which a position is fused; seconds of positions beyond until the vehicle is reset, as in PX4."""


@dataclass(slots=True)
class _Autopilot:
    """Position in metres east and north of the region's centre, one variance for both axes."""

    place: Floats
    variance: float = 1.0
    rejected: int = 0

    def predict(self, motion: Floats) -> None:
        self.place = self.place + motion
        self.variance += (_ODOMETRY_SIGMA * float(np.hypot(*motion))) ** 2

    def fuse(self, place: Floats, sigma: float) -> None:
        innovation = place - self.place
        total = self.variance + sigma**2
        self.rejected = self.rejected + 1 if float(innovation @ innovation) > _GATE**2 * total else 0
        if self.rejected * SECONDS > _PATIENCE:
            self.place, self.variance, self.rejected = place, sigma**2, 0
        elif not self.rejected:
            gain = self.variance / total
            self.place, self.variance = self.place + gain * innovation, (1 - gain) * self.variance


@dataclass(slots=True)
class Flight:
    """What happened, a row each SECONDS: metres east and north of the region's centre, of the vehicle, of its
    autopilot, and of dead reckoning by the same odometry since GNSS failed. `states`: the track's, at each frame.
    `sent`: messages.
    """

    truth: list[Floats] = field(default_factory=list)
    believed: list[Floats] = field(default_factory=list)
    reckoned: list[Floats] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    sent: int = 0

    @property
    def seconds(self) -> Floats:
        return np.arange(len(self.truth), dtype=np.float64) * SECONDS

    def error(self, of: list[Floats]) -> Floats:
        """Metres from the truth, float64, a value each step."""
        return np.asarray(np.linalg.norm(np.array(of) - np.array(self.truth), axis=1), np.float64)


def steps_of(minutes: float) -> int:
    """Steps of a flight with so many minutes without GNSS."""
    return round((FAILS + 60 * minutes) / SECONDS)


def points_of(minutes: float) -> int:
    """Points of a route that is longer than such a flight."""
    return round(1.05 * steps_of(minutes) * SECONDS * SPEED / WAY) + 20


def fly(
    localizer: Localizer,
    how: Preprocessing,
    world: World,
    region: Region,
    route: Route,
    *,
    steps: int,
    every: int,
    prior: float | None,
    seed: int,
    track: Track = untracked,
) -> Flight:
    """The whole flight: a frame every `every` steps, searched within `prior` metres of the autopilot's position, or
    everywhere. Equal arguments fly equally.
    """
    random = np.random.default_rng((seed, 3))
    centre = np.array([region.east, region.north])
    way = route.positions - centre
    scale, bias = 1 + _SCALE_ERROR * random.choice((-1, 1)), _COMPASS_BIAS * random.choice((-1, 1))
    place, heading, compass = way[0], float(route.headings[0]), float(route.headings[0])
    autopilot, flight, reckoned, nearest = _Autopilot(place), Flight(), place, 0
    predictor = Predictor(Gates(uncalibrated_sigma=_LEAST_SIGMA))
    tracker, count = Tracker(TrackOptions(seed=seed, heading_error=5.0)), sighted(len(localizer.gallery))
    for step in track(range(steps), "Flying", steps):
        now = step * SECONDS
        # Steer by what the autopilot believes to a point of the route ahead.
        nearest += int(np.argmin(np.hypot(*(way[nearest : nearest + 20] - autopilot.place).T)))
        target = way[min(len(way) - 1, nearest + round(_AHEAD / WAY))] - autopilot.place
        wanted = math.remainder(math.degrees(math.atan2(target[0], target[1])) - compass, 360)
        turn = float(np.clip(wanted, -_TURN * SECONDS, _TURN * SECONDS))
        place, heading = place + _moved(heading + turn / 2, SPEED * SECONDS), heading + turn
        off = bias + _COMPASS_NOISE * random.standard_normal()
        motion = Motion(SECONDS, SPEED * SECONDS * scale, heading + off - compass)
        measured, compass = _moved(compass + motion.turn / 2, motion.distance), heading + off
        predictor.move(Step(now, motion, None), now)
        autopilot.predict(measured)
        if now < FAILS:
            autopilot.fuse(place + _GNSS_SIGMA * random.standard_normal(2), _GNSS_SIGMA)
            reckoned = place
        else:
            reckoned = reckoned + measured
            position = predictor.position(now)
            if isinstance(position, Position):
                flight.sent += 1
                autopilot.fuse(*_received(position, now, region))
        flight.truth.append(place)
        flight.believed.append(autopilot.place)
        flight.reckoned.append(reckoned)
        if step % every:
            tracker.move(motion)
            continue
        # The compass aligns the panorama with what it takes for north.
        views = panoramas(world, (place + centre)[None], np.array([-off]), how.height, how.width, seed + step)
        lat, lon = region.coordinates((autopilot.place + centre)[None])[0]
        near = None if prior is None else Near(lat, lon, prior)
        sighting = sighting_of(localizer.locate(views[0], count, near=near))
        if sighting is None:  # no tile lies within the prior
            tracker.move(motion)
            flight.states.append("lost")
            continue
        point = tracker.step(motion, replace(sighting, headings=np.full(len(sighting.scores), compass % 360)))
        flight.states.append(point.state)
        predictor.answer(
            Waypoint(point.state, None, now, point.lat, point.lon, point.heading, point.within_68, point.within_95)
        )
    return flight


def _received(position: Position, now: float, region: Region) -> tuple[Floats, float]:
    """What the autopilot makes of the bytes: metres east and north of the region's centre, and sigma."""
    from pymavlink.dialects.v20 import common

    sender, receiver = common.MAVLink(None, 1, 197), common.MAVLink(None)
    (message,) = receiver.parse_buffer(global_position_sensor(position, Stamp(round(now * 1e6)), 0, 0).pack(sender))
    east, north = east_north(message.lat / 1e7, message.lon / 1e7, region.lat, region.lon)
    return np.array([float(east), float(north)]), float(message.eph)


def _moved(heading: float, metres: float) -> Floats:
    return metres * np.array([math.sin(math.radians(heading)), math.cos(math.radians(heading))])
