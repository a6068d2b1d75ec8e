"""The moments of a drive at which an answer is wanted, from odometry and frames put together in one of three ways: the
odometry's rows name the frames, both have times of one clock, or both come live.

Knows odometry and frames; knows nothing of engines, galleries or filters.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from geodtr.runtime.errors import DataError
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.prefetch import BackgroundReader
from geodtr.runtime.tracking.odometry import Motion, Odometry

PATIENCE = 5.0
"""Seconds that live odometry may take from one row to the next."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Its time in seconds, how the vehicle came here since the moment before, piece by piece, and the frame that was
    taken here, if there is one.
    """

    time: float
    motions: tuple[Motion, ...]
    frame: Frame | None


def by_row(odometry: Odometry) -> Iterator[Moment]:
    """A moment for each row, with the image that it names."""
    for step in odometry.steps:
        frame = None if step.image is None else Frame(str(step.image), step.image)
        yield Moment(step.time, (step.motion,), frame)


def by_time(frames: Iterable[Frame], odometry: Odometry, start: float | None = None) -> Iterator[Moment]:
    """A moment for each frame that lies within the odometry's times; those before and behind them are left out.

    `start` is the odometry's time at which the frames' own is 0; where it is None they began together with the first
    row. Between two rows the vehicle goes on evenly. Raises DataError when no frame lies within the odometry's times.
    """
    steps = iter(odometry.steps)
    first = next(steps, None)
    if first is None:
        raise DataError(f"{odometry.name} holds a header and no rows.")
    done = began = first.time
    if start is None:
        start = began
    ahead = next(steps, None)
    motions = list[Motion]()
    any_frame, begun = False, start
    for number, frame in enumerate(frames):
        # A source that breaks off knows no time of its last frame, and a damaged one may know a wrong one.
        now = done if frame.time is None else start + frame.time
        if number == 0:
            begun = now
        if now < began:
            continue
        while ahead is not None and ahead.time <= now:
            motions.append(ahead.motion.lasting(ahead.time - done))
            done, ahead = ahead.time, next(steps, None)
        if now > done:
            if ahead is None:
                break
            motions.append(ahead.motion.lasting(now - done))
            done = now
        yield Moment(done, tuple(motions), frame)
        motions.clear()
        any_frame = True
    if not any_frame:
        raise DataError(
            f"No frame lies within the times of {odometry.name}, which begin at {began:.10g}: the frames' own begin at "
            f"{begun:.10g}. Set --video-start to the odometry's time when a video began; a recording's frames have "
            "times of their own, and the odometry's must be of the same clock."
        )


def by_arrival(
    frames: Iterable[Frame], odometry: Odometry, limit: int | None = None, *, may_pause: bool = False
) -> Iterator[Moment]:
    """A moment for each frame as it arrives, at the time of the latest row of odometry; once the frames have ended, for
    each row. It ends with the odometry, or with the frame that reaches `limit`.

    Waits for the first row without a limit; raises DataError when later none arrives for PATIENCE, unless the odometry
    `may_pause`.
    """
    rows = BackgroundReader(odometry.steps, "odometry")
    first = rows.next(None)
    if first is None:
        raise DataError(f"{odometry.name} holds a header and no rows.")
    now, came = first.time, time.monotonic()
    for number, frame in enumerate(frames, 1):
        come = rows.come()
        if come:
            now, came = come[-1].time, time.monotonic()
        elif rows.over:
            return
        elif not may_pause and time.monotonic() - came > PATIENCE:
            raise _silent(odometry)
        yield Moment(now, tuple(step.motion for step in come), frame)
        if number == limit:
            return
    while True:
        try:
            step = rows.next(None if may_pause else PATIENCE)
        except TimeoutError:
            raise _silent(odometry) from None
        if step is None:
            return
        yield Moment(step.time, (step.motion,), None)


def _silent(odometry: Odometry) -> DataError:
    return DataError(f"{odometry.name} has given no row for {PATIENCE:g} s: the odometry has stopped.")
