"""How far answers are from where a satellite receiver was at the same time."""

import numpy as np

from geodtr.runtime.geodesy import distance
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.recordings.receiver import Track


class Truth:
    """The receiver's track, and the errors of the answers that were compared with it."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self.errors = list[float]()
        self.count = 0

    def take(self, waypoint: Waypoint) -> None:
        """Count one answer."""
        self.count += 1
        error = self.error_of(waypoint)
        if error is not None:
            self.errors.append(error)

    def at(self, waypoint: Waypoint) -> tuple[float, float] | None:
        """Where the receiver was; None where it does not say."""
        return None if waypoint.time_s is None else self._track.at(waypoint.time_s)

    def error_of(self, waypoint: Waypoint) -> float | None:
        """Metres between answer and receiver; None where either has no position."""
        known = self.at(waypoint)
        if known is None or waypoint.lat is None or waypoint.lon is None:
            return None
        return float(distance(*known, waypoint.lat, waypoint.lon))

    @property
    def summary(self) -> str:
        """In words."""
        if not self.errors:
            return f"None of {self.count} answers could be compared with the receiver: no position at the same time."
        median, most = np.quantile(self.errors, (0.5, 0.95))
        return (
            f"Error against the receiver: median {median:.1f} m, 95 % within {most:.1f} m, over {len(self.errors)} of "
            f"{self.count} answers"
        )
