"""What the node does: an image message in, and out a position, a pose and a diagnosis.

Knows no ROS: messages come as objects with their fields (rclpy's, rosbags') and go as plain values (messages.py).
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from geodtr.runtime.autopilot.messages import Position
from geodtr.runtime.autopilot.options import HeldBack
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.geodesy import Near, displacement, rotation_of
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.ros_image import decompressed, pixels_of
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.ros.messages import (
    APPROXIMATED,
    ERROR,
    OK,
    WARN,
    DiagnosticArray,
    DiagnosticStatus,
    Header,
    KeyValue,
    NavSatFix,
    NavSatStatus,
    Point,
    Pose,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    Time,
)
from geodtr.runtime.ros.parameters import Parameters

NAME = "geodtr: localisation"
_NOTHING = 1e6
"""A variance that states that nothing is known: metres or radians squared."""


@dataclass(frozen=True, slots=True)
class Published:
    """What one image gives: `fix` and `pose` are None where no position is published; the diagnosis has the reason."""

    fix: NavSatFix | None
    pose: PoseWithCovarianceStamped | None
    diagnostics: DiagnosticArray


class Core:
    """One localizer, the last prior, and the poses' origin. For one thread."""

    def __init__(self, parameters: Parameters) -> None:
        """Open bundle and gallery. Raises UserError."""
        self._parameters, self._gates = parameters, parameters.gates
        options = EngineOptions(threads=parameters.threads or None)
        self._localizer = Localizer.open(parameters.bundle, parameters.gallery, options, **parameters.taking)
        try:
            self._localizer.require_positions("the node")
        except BaseException:
            self.close()
            raise
        lat, lon = parameters.origin
        self._origin = None if math.isnan(lat) else (lat, lon)
        self._prior: tuple[Near, float] | None = None  # and its stamp in seconds
        self._count = 0

    def close(self) -> None:
        """Close the gallery."""
        self._localizer.close()

    def prior(self, fix: Any) -> None:
        """Take a NavSatFix of another source; one without a fix is ignored, and the last one stays."""
        radius = self._parameters.prior_radius
        if radius > 0 and fix.status.status >= 0 and math.isfinite(fix.latitude) and math.isfinite(fix.longitude):
            try:
                self._prior = Near(fix.latitude, fix.longitude, radius), _seconds(fix.header.stamp)
            except ConfigError:  # not on Earth
                return

    def image(self, message: Any) -> Published:
        """Localise one image. Never raises for what is in the message."""
        stamp = Time(int(message.header.stamp.sec), int(message.header.stamp.nanosec))
        diagnosed = partial(self._diagnosed, stamp, time.monotonic())
        name = f"image#{self._count}"
        self._count += 1
        time_s = _seconds(stamp)
        near = self._near(time_s)
        if isinstance(near, HeldBack):
            return Published(None, None, diagnosed(WARN, f"held back: {near.reason}", {}))
        try:
            pixels = decompressed(message, name) if self._parameters.compressed else pixels_of(message, name)
            located = self._localizer.locate(Frame(name, pixels, time_s), near=near)
        except ImageError as error:
            return Published(None, None, diagnosed(ERROR, str(error), {}))
        admitted = self._gates.admit(located.waypoint, track=False)
        values = _values(located)
        if isinstance(admitted, HeldBack):
            reason = (located.uncalibrated if admitted.reason == "uncalibrated" else None) or admitted.reason
            return Published(None, None, diagnosed(WARN, f"held back: {reason}", values))
        level, text = (OK, "fix") if located.doubt is None else (WARN, f"fix, of a doubtful image: {located.doubt}")
        values["sigma_m"] = f"{admitted.sigma:.2f}"
        fix, pose = self._fix(stamp, admitted), self._pose(stamp, admitted, located)
        return Published(fix, pose, diagnosed(level, text, values))

    def _near(self, time_s: float) -> Near | HeldBack | None:
        """Where to search for an image of this time, None for everywhere; held back where the prior that is asked for
        is not known. An old one would bound the search to where the vehicle was.
        """
        if self._parameters.prior_radius == 0:
            return None
        if self._prior is None:
            return HeldBack("no position has come on the topic prior")
        near, known = self._prior
        most, age = self._parameters.prior_age, abs(time_s - known)
        if age > most:
            return HeldBack(f"the last prior is {age:.1f} s from the image, prior_age is {most:g} s")
        return near

    def _fix(self, stamp: Time, position: Position) -> NavSatFix:
        variance = position.sigma**2
        return NavSatFix(
            header=Header(stamp, self._parameters.frame_id),
            status=NavSatStatus(),
            latitude=position.lat,
            longitude=position.lon,
            altitude=math.nan,  # above the ellipsoid, of which a height above the ground knows nothing
            position_covariance=np.diag([variance, variance, _NOTHING]).ravel(),
            position_covariance_type=APPROXIMATED,
        )

    def _pose(self, stamp: Time, position: Position, located: Localisation) -> PoseWithCovarianceStamped:
        """East and north of the origin; the rotation about the vertical from east, as REP 103 has it."""
        if self._origin is None:
            self._origin = (position.lat, position.lon)
        east, north = (float(part) for part in displacement(*self._origin, position.lat, position.lon))
        heading = located.waypoint.heading
        variance = position.sigma**2
        # A heading is one of so many that were searched, each as likely between its neighbours.
        step = math.radians(360 / max(1, self._parameters.headings))
        yaw = _NOTHING if heading is None else step**2 / 12
        covariance = np.diag([variance, variance, _NOTHING, _NOTHING, _NOTHING, yaw]).ravel()
        pose = Pose(Point(east, north, 0.0), Quaternion(0.0, 0.0, *rotation_of(heading)))
        return PoseWithCovarianceStamped(
            Header(stamp, self._parameters.pose_frame), PoseWithCovariance(pose, covariance)
        )

    def _diagnosed(self, stamp: Time, began: float, level: int, text: str, values: dict[str, str]) -> DiagnosticArray:
        took = {"latency_ms": f"{1000 * (time.monotonic() - began):.1f}"}
        pairs = [KeyValue(key, value) for key, value in {**values, **took}.items()]
        status = DiagnosticStatus(level, NAME, text, self._parameters.gallery, pairs)
        return DiagnosticArray(Header(stamp, ""), [status])


def _seconds(stamp: Any) -> float:
    return int(stamp.sec) + int(stamp.nanosec) / 1e9


def _values(located: Localisation) -> dict[str, str]:
    """What a person looks at."""
    waypoint = located.waypoint
    values: dict[str, str] = {"state": waypoint.state}
    if located.candidates:
        best = located.candidates[0]
        values |= {"tile": best.place.id, "score": f"{best.score:.4f}"}
    for name in ("margin", "spread_m", "within_68_m", "within_95_m"):
        value = getattr(waypoint, name)
        if value is not None:
            values[name] = f"{value:.4g}"
    return values
