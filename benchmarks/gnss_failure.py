"""Fly on without GNSS through the generated world, in a closed loop: benchmarks/gnss_failure.py BUNDLE WORK

A vehicle follows roads by the position that its autopilot believes. After a minute its GNSS fails. From then on the
autopilot has odometry with a wrong scale, a compass that is off, and the positions that this project sends. Every 0.6
seconds a panorama is rendered at the true position, aligned by the compass, localised near the autopilot's position,
and tracked. Five times a second the prediction is packed as GLOBAL_POSITION_SENSOR, parsed, and fused by a Kalman
filter with a gate, as PX4 does. Time is simulated; the time that localising takes is not.

Prints the error of the autopilot's position since GNSS failed, and of dead reckoning by the same odometry. Writes
gnss_failure.png to WORK. WORK holds the tiles and is reused with equal arguments.
"""

import argparse
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymavlink.dialects.v20 import common
from track import Route, build, follow_roads, grid_around, panoramas, render_tiles

from geodtr import Localizer, open_bundle
from geodtr.export.plots.files import save_picture
from geodtr.runtime.autopilot.messages import Position, Stamp, global_position_sensor
from geodtr.runtime.autopilot.prediction import Gates, Predictor
from geodtr.runtime.files import new_folder
from geodtr.runtime.geodesy import Near, east_north
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.spec import Preprocessing
from geodtr.runtime.tracking.filter import Tracker, TrackOptions, sighted
from geodtr.runtime.tracking.odometry import Motion, Step
from geodtr.runtime.tracking.run import sighting_of
from geodtr.training.world.regions import Region, find_region
from geodtr.training.world.terrain import World

Floats = NDArray[np.float64]
SECONDS, SPEED = 0.2, 10.0
WAY = 5.0
"""Metres between two points of the route."""
FAILS = 60.0
"""Seconds until GNSS fails."""
MARGIN = 60.0
SCALE_ERROR, COMPASS_BIAS, COMPASS_NOISE = 0.03, 2.0, 1.0  # a share, degrees, degrees
GNSS_SIGMA, MIN_SIGMA = 2.0, 8.0
ODOMETRY_SIGMA = 0.25
"""Of a step, as the autopilot takes it: the filter knows independent errors alone, and these last."""
AHEAD, TURN = 20.0, 30.0  # metres to the point steered to; degrees/s


@dataclass(slots=True)
class Autopilot:
    """Position in metres east and north of the region's centre, one variance for both axes."""

    place: Floats
    variance: float = 1.0
    rejected: int = 0

    def predict(self, motion: Floats) -> None:
        self.place = self.place + motion
        self.variance += (ODOMETRY_SIGMA * float(np.hypot(*motion))) ** 2

    def fuse(self, place: Floats, sigma: float) -> None:
        """A Kalman update within 5 sigma; what is beyond for 5 seconds is where the vehicle is reset to, as in PX4."""
        innovation = place - self.place
        total = self.variance + sigma**2
        self.rejected = self.rejected + 1 if float(innovation @ innovation) > 25 * total else 0
        if self.rejected * SECONDS > 5.0:
            self.place, self.variance, self.rejected = place, sigma**2, 0
        elif not self.rejected:
            gain = self.variance / total
            self.place, self.variance = self.place + gain * innovation, (1 - gain) * self.variance


@dataclass(slots=True)
class Flight:
    """Metres east and north of the region's centre, one row each SECONDS."""

    truth: list[Floats] = field(default_factory=list)
    believed: list[Floats] = field(default_factory=list)
    reckoned: list[Floats] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    sent: int = 0

    def add(self, truth: Floats, believed: Floats, reckoned: Floats) -> None:
        self.truth.append(truth)
        self.believed.append(believed)
        self.reckoned.append(reckoned)

    @property
    def seconds(self) -> Floats:
        return np.arange(len(self.truth), dtype=np.float64) * SECONDS

    def error(self, of: list[Floats]) -> Floats:
        return np.asarray(np.linalg.norm(np.array(of) - np.array(self.truth), axis=1), np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--region", default="coast")
    parser.add_argument("--minutes", type=float, default=10.0, help="Minutes without GNSS.")
    parser.add_argument("--spacing", type=float, default=12.0, help="Distance between tiles in metres.")
    parser.add_argument("--every", type=int, default=3, help="Steps of 0.2 s between two frames.")
    parser.add_argument("--prior", type=float, default=300.0, help="Search within so many metres; 0: everywhere.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    region, work = find_region(options.region), options.work
    world = World(0, region.style)
    steps = round((FAILS + 60 * options.minutes) / SECONDS)
    route = follow_roads(world, region, round(1.05 * steps * SECONDS * SPEED / WAY) + 20, options.seed)
    how = open_bundle(options.bundle).manifest.ground.spec.preprocessing
    if not work.exists():
        with new_folder(work) as folder:
            tiles = grid_around(route.positions, options.spacing, MARGIN)
            render_tiles(folder, world, region, tiles, 2 * how.height, options.seed)
    if not (work / "gallery").exists():
        build(work, options.bundle)
    with Localizer.open(options.bundle, work / "gallery") as localizer:
        flight = fly(localizer, how, world, region, route, steps, options)
    _report(flight, as_json=options.json)
    picture = work / "gnss_failure.png"
    picture.unlink(missing_ok=True)
    save_picture(_drawn(flight), picture, replace=True)


def fly(
    localizer: Localizer, how: Preprocessing, world: World, region: Region, route: Route, steps: int, options: Any
) -> Flight:
    """The whole flight; equal arguments fly equally."""
    seed = options.seed
    random = np.random.default_rng((seed, 3))
    centre = np.array([region.east, region.north])
    way = route.positions - centre
    scale, bias = 1 + SCALE_ERROR * random.choice((-1, 1)), COMPASS_BIAS * random.choice((-1, 1))
    place, heading, compass = way[0], float(route.headings[0]), float(route.headings[0])
    autopilot, flight, reckoned, nearest = Autopilot(place), Flight(), place, 0
    predictor = Predictor(Gates(uncalibrated_sigma=MIN_SIGMA))
    tracker, count = Tracker(TrackOptions(seed=seed, heading_error=5.0)), sighted(len(localizer.gallery))
    for step in range(steps):
        now = step * SECONDS
        # Steer by what the autopilot believes to a point of the route ahead.
        nearest += int(np.argmin(np.hypot(*(way[nearest : nearest + 20] - autopilot.place).T)))
        target = way[min(len(way) - 1, nearest + round(AHEAD / WAY))] - autopilot.place
        wanted = math.remainder(math.degrees(math.atan2(target[0], target[1])) - compass, 360)
        turn = float(np.clip(wanted, -TURN * SECONDS, TURN * SECONDS))
        place, heading = place + _moved(heading + turn / 2, SPEED * SECONDS), heading + turn
        off = bias + COMPASS_NOISE * random.standard_normal()
        motion = Motion(SECONDS, SPEED * SECONDS * scale, heading + off - compass)
        measured, compass = _moved(compass + motion.turn / 2, motion.distance), heading + off
        predictor.move(Step(now, motion, None), now)
        autopilot.predict(measured)
        if now < FAILS:
            autopilot.fuse(place + GNSS_SIGMA * random.standard_normal(2), GNSS_SIGMA)
            reckoned = place
        else:
            reckoned = reckoned + measured
            position = predictor.position(now)
            if isinstance(position, Position):
                flight.sent += 1
                autopilot.fuse(*_received(position, now, region))
        flight.add(place, autopilot.place, reckoned)
        if step % options.every:
            tracker.move(motion)
            continue
        # The compass aligns the panorama with what it takes for north.
        views = panoramas(world, (place + centre)[None], np.array([-off]), how.height, how.width, seed + step)
        lat, lon = region.coordinates((autopilot.place + centre)[None])[0]
        near = None if options.prior == 0 else Near(lat, lon, options.prior)
        sighting = sighting_of(localizer.locate(views[0], count, near=near))
        assert sighting is not None  # of tiles
        point = tracker.step(motion, replace(sighting, headings=np.full(len(sighting.scores), compass % 360)))
        flight.states.append(point.state)
        predictor.answer(
            Waypoint(point.state, None, now, point.lat, point.lon, point.heading, point.within_68, point.within_95)
        )
    return flight


def _received(position: Position, now: float, region: Region) -> tuple[Floats, float]:
    """What the autopilot makes of the bytes: metres east and north of the region's centre, and sigma."""
    sender, receiver = common.MAVLink(None, 1, 197), common.MAVLink(None)
    (message,) = receiver.parse_buffer(global_position_sensor(position, Stamp(round(now * 1e6)), 0, 0).pack(sender))
    east, north = east_north(message.lat / 1e7, message.lon / 1e7, region.lat, region.lon)
    return np.array([float(east), float(north)]), float(message.eph)


def _moved(heading: float, metres: float) -> Floats:
    return metres * np.array([math.sin(math.radians(heading)), math.cos(math.radians(heading))])


def _report(flight: Flight, *, as_json: bool) -> None:
    without = flight.seconds >= FAILS
    last = flight.seconds >= flight.seconds[-1] - 60
    believed, reckoned = flight.error(flight.believed), flight.error(flight.reckoned)
    figures: dict[str, Any] = {
        "minutes": float((flight.seconds[-1] - FAILS) / 60),
        "median_m": float(np.median(believed[without])),
        "worst_m": float(believed[without].max()),
        "last_minute_median_m": float(np.median(believed[last])),
        "dead_reckoning_m": float(reckoned[-1]),
        "tracking": float(np.mean([state == "tracking" for state in flight.states])),
        "sent": flight.sent,
    }
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:22} {value:.2f}")


def _drawn(flight: Flight) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    above, errors = figure.subplots(1, 2)
    without = flight.seconds >= FAILS
    for name, rows, colour in (
        ("true", flight.truth, "black"),
        ("autopilot", flight.believed, "tab:blue"),
        ("dead reckoning", flight.reckoned, "tab:red"),
    ):
        east, north = np.array(rows).T
        above.plot(east, north, label=name, color=colour, linewidth=1)
        if rows is not flight.truth:
            minutes = (flight.seconds[without] - FAILS) / 60
            errors.plot(minutes, np.maximum(flight.error(rows)[without], 0.1), label=name, color=colour, linewidth=1)
    above.set(aspect="equal", xlabel="metres east", ylabel="metres north", title="Flight")
    errors.set(yscale="log", xlabel="minutes without GNSS", ylabel="error in metres", title="Error")
    errors.yaxis.set_major_formatter("{x:g}")
    errors.axhline(10, color="grey", linestyle=":", linewidth=1)
    for axes in (above, errors):
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
