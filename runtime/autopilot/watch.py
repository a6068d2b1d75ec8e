"""What is reported to an operator in flight: an autopilot that is silent, has no velocity to give, refuses positions.

Knows times and answers; knows nothing of messages. Each is reported once, and so is its end.
"""

from collections.abc import Callable


class Watch:
    """For one thread. All times are seconds of time.monotonic; `patience` seconds of silence count as one."""

    def __init__(self, address: str, patience: float, report: Callable[[str], None]) -> None:
        self._address, self._patience, self._report = address, patience, report
        self._began: float | None = None
        self._moved = 0.0
        self._silent = self._still = self._refused = False

    def moved(self, now: float) -> None:
        """A row of its own odometry is there."""
        self._moved = now

    def look(self, now: float, heartbeat: float | None, *, own_odometry: bool) -> None:
        """`heartbeat`: when its last one came, None for never. `own_odometry`: rows of it are awaited."""
        if self._began is None:
            self._began = now
        silent = now - (self._began if heartbeat is None else heartbeat) > self._patience
        if silent and not self._silent:
            self._report(
                f"No autopilot heard at {self._address} for {self._patience:g} s. Positions are sent all the same."
            )
        elif self._silent and not silent:
            self._report(f"The autopilot at {self._address} is heard now.")
            self._began = now
        self._silent = silent
        still = own_odometry and not silent and now - max(self._began, self._moved) > self._patience
        if still and not self._still:
            self._report(
                f"The autopilot at {self._address} has sent no attitude with a velocity for {self._patience:g} s, so "
                "there is no motion to track. ArduPilot sends LOCAL_POSITION_NED only while its EKF has a position: "
                "give it one first (GNSS), or take the motion from another program: --track -"
            )
        elif self._still and not still and not silent:
            self._report("The autopilot's own motion is there now.")
        self._still = still

    def refused(self, result: str | None) -> None:
        """The answer to an external position: the name of the MAV_RESULT, None for accepted."""
        if result is not None and not self._refused:
            self._report(
                f"The autopilot refuses external positions ({result}). ArduPilot takes them only while its EKF dead "
                "reckons: it has an origin, and no position has been fused for a second."
            )
        elif result is None and self._refused:
            self._report("The autopilot takes external positions now.")
        self._refused = result is not None
