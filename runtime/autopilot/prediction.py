"""What may be sent now: the last answer, moved by the odometry since then, unless a gate holds it back.

Knows answers, odometry and seconds; knows nothing of messages or links. A Predictor may be called from several threads.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from threading import Lock

from geodtr.runtime.autopilot.messages import Position
from geodtr.runtime.autopilot.options import OLDEST, Gates, HeldBack
from geodtr.runtime.geodesy import moved
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.tracking.odometry import Motion, Step
from geodtr.runtime.tracking.particles import MotionNoise, chord

HORIZON = 2.0
"""Seconds that the vehicle is taken to go on as by the last row of odometry."""


class Predictor:
    """A track's position at any moment. All `now` are seconds of one clock that never jumps (time.monotonic); answers
    and rows of odometry share another.
    """

    def __init__(self, gates: Gates) -> None:
        self._gates = gates
        self._noise = MotionNoise()
        self._lock = Lock()
        self._answer: Waypoint | None = None
        self._rows = deque[Step]()
        self._arrived = 0.0  # when the last row came
        self._was_lost = False
        self._resets = 0

    def answer(self, waypoint: Waypoint) -> None:
        """Take the filter's answer to a moment."""
        with self._lock:
            if waypoint.state == "tracking" and self._was_lost:
                self._resets = (self._resets + 1) % 256
            self._was_lost = waypoint.state == "lost" or (self._was_lost and waypoint.state != "tracking")
            self._answer = waypoint

    def move(self, row: Step, now: float) -> None:
        """Take a row of odometry when it is there."""
        with self._lock:
            if self._rows and row.time <= self._rows[-1].time:
                # The odometry's clock began again: what was known by the old one has no place in the new.
                self._rows.clear()
                self._answer = None
            self._rows.append(row)
            self._arrived = now
            while self._rows[0].time < row.time - 2 * OLDEST:
                self._rows.popleft()

    def position(self, now: float) -> Position | HeldBack:
        """The position that holds now, or why none may be sent."""
        with self._lock:
            answer = self._answer
            if answer is None or answer.lat is None or answer.lon is None or answer.time_s is None:
                return HeldBack("no answer yet" if answer is None else answer.state)
            if not self._rows:
                return HeldBack("no odometry")
            last, beyond = self._rows[-1], max(0.0, now - self._arrived)
            age = last.time + beyond - answer.time_s
            if beyond > HORIZON:
                return HeldBack("the odometry has stopped")
            if age < 0:
                return HeldBack("the odometry's clock jumped")
            if age > OLDEST:
                return HeldBack("too old")
            # A row leads to its time from the one before; of the first only a part may come after the answer.
            after = [(row.motion, row.time - answer.time_s) for row in self._rows if row.time > answer.time_s]
            motions = [motion.lasting(min(seconds, motion.seconds)) for motion, seconds in after]
            motions.append(last.motion.lasting(min(beyond, age)))
            lat, lon, gone = _moved(answer.lat, answer.lon, answer.heading or 0.0, motions)
            grown = math.hypot(self._noise.scale * gone, self._noise.drift * math.sqrt(age))
            position = self._gates.admit(replace(answer, lat=lat, lon=lon), track=True, grown=grown)
            return position if isinstance(position, HeldBack) else replace(position, reset_counter=self._resets)


def _moved(lat: float, lon: float, heading: float, motions: Iterable[Motion]) -> tuple[float, float, float]:
    """The place in degrees after `motions`, and the metres of the way there."""
    gone = 0.0
    for motion in motions:
        east, north = chord(heading, motion.turn, motion.distance, motion.right)
        lat, lon = (float(value) for value in moved(lat, lon, east, north))
        heading += motion.turn
        gone += math.hypot(motion.distance, motion.right)
    return lat, lon, gone
