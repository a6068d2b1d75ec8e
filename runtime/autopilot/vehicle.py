"""What an autopilot reports of itself on the link: its clock, attitude, velocity and origin, and odometry out of these.

Knows messages that were parsed; knows nothing of how they came.
"""

import math
from queue import SimpleQueue
from typing import Any

from geodtr.runtime.autopilot.messages import Stamp
from geodtr.runtime.tracking.odometry import STANDING, Motion, Odometry, Step

FRESH = 1.0
"""Seconds of the autopilot's clock that a velocity counts for attitudes after it."""
_REBOOT = 10.0  # seconds that its clock goes back by; less is a message that was overtaken
_LATE, _DRIFT = 1.0, 1e-4  # seconds that a message may be late by; how far two clocks may drift apart, as a share
_DATES = (1e9, 4e9)  # Unix time that can be one: the years 2001 to 2096

INTERVALS = {"SYSTEM_TIME": 1.0, "ATTITUDE": 0.05, "LOCAL_POSITION_NED": 0.1, "GPS_GLOBAL_ORIGIN": 1.0}
"""Messages that are asked for, and seconds between two of a kind."""


class Clock:
    """The autopilot's time by this computer's, out of SYSTEM_TIME. All `now` are seconds of time.monotonic.

    The message that was quickest decides; one that is seconds off all others is a reboot, or a link that became slower.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._set = 0.0
        self._unix: float | None = None

    @property
    def known(self) -> bool:
        return self._offset is not None

    def hear(self, boot: float, unix: float, now: float) -> None:
        """Seconds since the autopilot booted, and since 1970 (0: it does not know)."""
        offset = boot - now
        held = self._offset
        if held is None or not held - _LATE <= offset <= held - _DRIFT * (now - self._set):
            self._offset, self._set = offset, now
        self._unix = unix - boot if _DATES[0] < unix < _DATES[1] else None

    def stamp(self, now: float, wall: float) -> Stamp:
        """The autopilot's time; `wall`, this computer's seconds since 1970, where nothing was heard of it."""
        if self._offset is None:
            return Stamp(round(wall * 1e6))
        boot = max(0.0, now + self._offset)
        return Stamp(round(boot * 1e6), None if self._unix is None else boot + self._unix)


class Vehicle:
    """One autopilot, the first that is heard, and what it reported last. For one thread.

    Attitude in radians (roll, pitch, yaw), origin in degrees, `down` in metres below it. What was not heard is None.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.system = self.component = 0  # all, until one is heard
        self.autopilot = 0  # a MAV_AUTOPILOT; 0: generic
        self.heard: float | None = None  # when its last heartbeat came
        self.attitude: tuple[float, float, float] | None = None
        self.down: float | None = None
        self.origin: tuple[float, float] | None = None
        self._velocity: tuple[float, float, float] | None = None  # time, north, east
        self._last: tuple[float, float, float, float] | None = None  # time, forward, right, yaw
        self._steps: SimpleQueue[Step | None] | None = None  # until somebody takes them

    def hear(self, message: Any, now: float) -> Step | None:
        """Take a message; a row of odometry where it makes one. Messages of other systems are left out."""
        name = message.get_type()
        if name == "HEARTBEAT":
            self._heartbeat(message, now)
        if (message.get_srcSystem(), message.get_srcComponent()) != (self.system, self.component):
            return None
        if name == "SYSTEM_TIME":
            self.clock.hear(message.time_boot_ms / 1e3, message.time_unix_usec / 1e6, now)
        elif name == "GPS_GLOBAL_ORIGIN":
            self.origin = (message.latitude / 1e7, message.longitude / 1e7)
        elif name == "LOCAL_POSITION_NED":
            values = (message.vx, message.vy, message.z)
            if all(map(math.isfinite, values)):
                self._velocity = (message.time_boot_ms / 1e3, message.vx, message.vy)
                self.down = message.z
        elif name == "ATTITUDE":
            angles = (message.roll, message.pitch, message.yaw)
            if all(map(math.isfinite, angles)):
                self.attitude = angles
                return self._row(message.time_boot_ms / 1e3, message.yaw)
        return None

    def odometry(self, name: str) -> Odometry:
        """The rows to come, one for each attitude; `name`: the link's."""
        self._steps = SimpleQueue()
        return Odometry(name, unix=False, images=False, steps=iter(self._steps.get, None), count=None)

    def close(self) -> None:
        """End the rows."""
        if self._steps is not None:
            self._steps.put(None)

    def _heartbeat(self, message: Any, now: float) -> None:
        from pymavlink.dialects.v20 import common

        if message.autopilot == common.MAV_AUTOPILOT_INVALID:
            return  # a ground station, a camera, or this program
        if self.heard is None:
            self.system, self.component = message.get_srcSystem(), message.get_srcComponent()
            self.autopilot = message.autopilot
        if (message.get_srcSystem(), message.get_srcComponent()) == (self.system, self.component):
            self.heard = now

    def _row(self, time: float, yaw: float) -> Step | None:
        """How the vehicle came here since the attitude before, at the mean of the velocities at both."""
        if self._last is not None and self._last[0] - _REBOOT < time <= self._last[0]:
            return None  # overtaken by a later one
        if self._last is not None and time < self._last[0]:
            self._last = self._velocity = None
        if self._velocity is None or abs(time - self._velocity[0]) > FRESH:
            return None
        _, north, east = self._velocity
        forward = north * math.cos(yaw) + east * math.sin(yaw)
        right = east * math.cos(yaw) - north * math.sin(yaw)
        motion = STANDING
        if self._last is not None:
            before, forward_then, right_then, yaw_then = self._last
            seconds = time - before
            motion = Motion(
                seconds,
                (forward + forward_then) / 2 * seconds,
                math.degrees(math.remainder(yaw - yaw_then, math.tau)),
                (right + right_then) / 2 * seconds,
            )
        self._last = (time, forward, right, yaw)
        step = Step(time, motion, None)
        if self._steps is not None:
            self._steps.put(step)
        return step
