"""Where a satellite receiver was: what is recorded of frames, and what bounds the search for them."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from msgspec import Meta

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ImageError
from geodtr.runtime.geodesy import Near, wrapped
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.recorded import Recorded, Stated
from geodtr.runtime.localization.fix import Floats

GAP = 2.0
"""Seconds between two positions of a receiver, beyond which nothing is known in between."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Where a satellite receiver was: times in seconds, rising, lat and lon in degrees, [N] each; `name` is its topic's
    name.
    """

    name: str
    time: Floats
    lat: Floats
    lon: Floats

    def at(self, time: float) -> tuple[float, float] | None:
        """The position at a time, between those before and after; None where one of them is not within two seconds."""
        after = int(np.searchsorted(self.time, time))
        if after < len(self.time) and self.time[after] == time:
            return float(self.lat[after]), float(self.lon[after])
        if not 0 < after < len(self.time) or self.time[after] - self.time[after - 1] > GAP:
            return None
        share = (time - self.time[after - 1]) / (self.time[after] - self.time[after - 1])
        turn = wrapped(self.lon[after] - self.lon[after - 1])
        lat = self.lat[after - 1] + share * (self.lat[after] - self.lat[after - 1])
        return float(lat), float(wrapped(self.lon[after - 1] + share * turn))

    def before(self, time: float) -> tuple[float, float, float] | None:
        """The last position that was known at a time, and its age in seconds; None before the first."""
        last = int(np.searchsorted(self.time, time, side="right")) - 1
        return None if last < 0 else (float(self.lat[last]), float(self.lon[last]), time - float(self.time[last]))

    def beside(self, frame: Frame) -> Frame:
        """The frame with where the receiver was when it was taken, as what is recorded of it."""
        at = None if frame.time is None else self.at(frame.time)
        if at is None:
            return frame
        lat, lon = (Stated(value, self.name) for value in at)
        return replace(frame, recorded=Recorded(frame.name, lat, lon))


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Frames are searched within `radius` metres of the receiver's last position, which may be `age` seconds old.

    Raises ConfigError unless both are above 0.
    """

    track: Track
    radius: float
    age: Annotated[float, Meta(gt=0, description="s")] = GAP

    def __post_init__(self) -> None:
        Near(0, 0, self.radius)
        check_fields(self)

    def joined(self, frame: Frame) -> Frame:
        """The frame with its prior; with an ImageError where no position is known, or the last one is too old."""
        if isinstance(frame.image, ImageError):
            return frame
        known = None if frame.time is None else self.track.before(frame.time)
        if known is not None and known[2] <= self.age:
            return replace(frame, near=Near(known[0], known[1], self.radius))
        why = "is known before it" if known is None else f"is newer than {known[2]:.1f} s"
        return replace(
            frame,
            image=ImageError(
                f"{frame.name}: no position of {self.track.name} {why}, so it has no prior; one may be {self.age:g} s "
                "old. To leave such frames out: --on-error skip; to use older positions: --prior-age SECONDS"
            ),
        )
