"""What `localize --track` takes: odometry from a file, a pipe or an autopilot, and the frames that belong to it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.cli.deploy.localize.autopilot import FROM_LINK
from geodtr.runtime.errors import ConfigError

FROM_RECORD = "flight"
"""The odometry of --track that is the flight record's own motion."""

if TYPE_CHECKING:
    from geodtr.runtime.autopilot.link import Link
    from geodtr.runtime.images.frames import Frame, Frames
    from geodtr.runtime.tracking.odometry import Odometry
    from geodtr.runtime.tracking.synchronize import Moment


@dataclass(frozen=True, slots=True)
class Drive:
    """The moments of a drive, how many there are if that is known, and whether their clock is Unix time."""

    moments: "Iterator[Moment]"
    count: int | None
    unix: bool

    def each_frame(self, change: "Callable[[Frame], Frame]") -> "Drive":
        """The same with every frame changed."""
        moments = (each if each.frame is None else replace(each, frame=change(each.frame)) for each in self.moments)
        return replace(self, moments=moments)


def drive_of(
    odometry: Path | None,
    frames: "Frames | None",
    video_start: float | None,
    limit: int | None,
    link: "Link | None",
    flown: "tuple[Odometry, float] | None" = None,
) -> Drive | None:
    """What --track asks for, with or without IMAGES; `link` takes the rows of odometry as they come. `flown`: of a
    video's flight record the motion, and its time at the start of the video.
    """
    from geodtr.runtime.tracking.synchronize import by_arrival, by_row, by_time

    _check(odometry, frames, video_start, link)
    if odometry is None:
        return None
    if link is not None and _from_link(odometry):
        assert frames is not None
        # The autopilot may fall silent and return; the flight goes on meanwhile.
        return Drive(by_arrival(frames.frames, link.odometry(), limit, may_pause=True), None, unix=False)
    if flown is not None:
        driven, video_start = flown
    else:
        driven = _open(odometry)
    if link is not None:
        driven = link.follow(driven, paced=not from_pipe(odometry))
    if frames is None:
        return Drive(by_row(driven), driven.count, driven.unix)
    if driven.images:
        raise ConfigError(f"{driven.name} has a column image, and IMAGES are given too. Drop one of the two.")
    if frames.kind == "camera":
        return Drive(by_arrival(frames.frames, driven, limit), None, driven.unix)
    start = 0.0 if frames.kind == "recording" else video_start  # its frames have times of their own
    return Drive(by_time(frames.frames, driven, start), None, driven.unix)


def _check(odometry: Path | None, frames: "Frames | None", video_start: float | None, link: "Link | None") -> None:
    kind = None if frames is None else frames.kind
    if odometry is None:
        if frames is None:
            raise ConfigError("Give images to localise, or --track ODOMETRY.csv, whose column image lists them.")
        return
    if kind == "images":
        raise ConfigError(
            "Give either images or --track: images that belong to odometry stand in its column image. One video, "
            "one camera or one recording can be given beside it."
        )
    if _from_link(odometry) and (link is None or kind != "camera"):
        raise ConfigError("--track mavlink takes the autopilot's own motion: give a camera and --mavlink ADDRESS.")
    if kind == "camera" and not (from_pipe(odometry) or _from_link(odometry)):
        raise ConfigError(f"A camera's odometry must come as it drives: tail -f {odometry} | ... --track -")
    if from_record(odometry) and kind != "video":
        raise ConfigError("--track flight takes the motion of a video's record: give a video and --flight RECORD.")
    if video_start is not None and kind != "video":
        raise ConfigError("--video-start needs a video beside --track.")
    if video_start is not None and not isfinite(video_start):
        raise ConfigError(f"--video-start is {video_start}; a finite number of seconds is needed.")


def _open(odometry: Path) -> "Odometry":
    from geodtr.runtime.prefetch import arriving_lines
    from geodtr.runtime.tracking.odometry import follow_odometry, read_odometry

    if not from_pipe(odometry):
        return read_odometry(odometry)
    name = "standard input"
    return follow_odometry(arriving_lines(sys.stdin.fileno(), name), name, Path())


def from_pipe(odometry: Path | None) -> bool:
    """Whether --track reads standard input."""
    return str(odometry) == "-"


def from_record(odometry: Path | None) -> bool:
    """Whether --track takes the flight record's own motion."""
    return str(odometry) == FROM_RECORD


def _from_link(odometry: Path) -> bool:
    return str(odometry) == FROM_LINK
