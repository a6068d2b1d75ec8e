"""Where positions go and how, and which of them are sent. Knows answers and metres; knows nothing of links."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.autopilot.messages import Position
from geodtr.runtime.autopilot.transport import check_address
from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.localization.fix import SIGMAS_68, SIGMAS_95
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.names import MavlinkMessage

OLDEST = 5.0
"""Seconds since the frame was taken, after which an answer is not sent any more."""
_LEAST = 0.1
"""Metres of sigma: 0 would be taken for certainty."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """That a position may not be given, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gates:
    """Which positions are sent. Raises ConfigError naming a value out of range.

    Attributes
    ----------
    uncalibrated_sigma
        Send positions without a calibrated radius too, with at least this standard deviation in metres; None sends
        none. A track's radii are the filter's own belief, and a second stage's covariance knows nothing of the map's
        own error: they are uncalibrated.
    max_sigma
        Hold back a position of a larger standard deviation, and a calibrated fix whose 95 % radius is wider than a
        Gaussian's of this one, metres. A track's 95 % radius holds particles that the filter draws again at each
        frame: whether it is tracking is the better gate.
    send_lost
        Send a track's position too while it is not tracking.
    """

    uncalibrated_sigma: Annotated[float | None, Meta(gt=0, description="metres")] = None
    max_sigma: Annotated[float, Meta(gt=0, description="metres")] = 50.0
    send_lost: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.uncalibrated_sigma is not None and self.uncalibrated_sigma > self.max_sigma:
            raise ArgumentError(
                "uncalibrated_sigma",
                f"is {self.uncalibrated_sigma} m, above the largest that is sent, {self.max_sigma} m: no position "
                "would be. Lower it, or raise that.",
            )

    def admit(self, answer: Waypoint, *, track: bool, grown: float = 0.0, age: float = 0.0) -> Position | HeldBack:
        """The position that an answer may claim, or why it is held back. `track`: its radii are a filter's belief.
        `grown`: metres of sigma that motion has added since.
        """
        if answer.lat is None or answer.lon is None or not (answer.reliable or (track and self.send_lost)):
            return HeldBack(answer.state)
        if age > OLDEST:
            return HeldBack("too old")
        believed = 0.0 if answer.within_68_m is None else answer.within_68_m / SIGMAS_68
        if track or answer.within_68_m is None or answer.covariance_m2 is not None:
            if self.uncalibrated_sigma is None:
                return HeldBack("uncalibrated")
            believed = max(self.uncalibrated_sigma, believed)
        sigma = math.hypot(believed, grown)
        tail = 0.0 if track or answer.within_95_m is None else answer.within_95_m / SIGMAS_95
        if max(sigma, tail) > self.max_sigma:
            return HeldBack("radius too wide")
        return Position(answer.lat, answer.lon, max(sigma, _LEAST), age, reliable=answer.reliable)


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Where positions go and how. Raises ConfigError naming a value that is not allowed.

    Attributes
    ----------
    address
        udpout:HOST:PORT, udpin:HOST:PORT, tcp:HOST:PORT, serial:DEVICE or serial:DEVICE:BAUD.
    rate
        Messages a second of a track; None is the kind's own, `RATES`.
    tlog
        A new file that gets every message, in and out.
    """

    address: str
    kind: MavlinkMessage = "global-position-sensor"
    rate: Annotated[float | None, Meta(ge=0.1, le=100, description="messages a second")] = None
    gates: Gates = field(default_factory=Gates)
    tlog: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_address(self.address)
