"""The options of `localize` for what is recorded of its images: a drone's flight record, or the images' own tags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodtr.cli.console import messages
from geodtr.cli.options import OnError, leaving_out, parse_near
from geodtr.export.options import option
from geodtr.runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from geodtr.runtime.flights.record import Flight
    from geodtr.runtime.geodesy import Near
    from geodtr.runtime.images.frames import Frames
    from geodtr.runtime.tracking.odometry import Odometry

TAGS = "exif"
_RECORDED = "flight"


@dataclass(frozen=True, slots=True)
class FlightOptions:
    """What the group of options holds."""

    flight: str | None = option(
        None,
        "Record of the video's flight: a DJI drone's .SRT, or a .csv of Airdata, DJI's converters or Litchi; exif: "
        "each photograph's own tags.",
        "FILE|exif",
    )
    flight_start: float | None = option(
        None, "The record's time at the start of the video.", "SECONDS", shown="as the record has it"
    )


def is_recorded(near: str | None) -> bool:
    """Whether --near asks for the recorded position of each image."""
    return near is not None and near.partition(",")[0].strip().lower() == _RECORDED


def prior_of(near: str | None) -> "tuple[Near | None, float | None]":
    """What --near states: one prior for all frames, or the radius of a prior about each one's recorded position."""
    if near is None:
        return None, None
    from geodtr.runtime.geodesy import Near

    if not is_recorded(near):
        return parse_near(near), None
    try:
        metres = float(near.partition(",")[2])
    except ValueError:
        raise ConfigError(f"--near {near!r} is not flight,RADIUS, in metres, for example flight,500.") from None
    return None, Near(0, 0, metres).radius


def flight_of(frames: "Frames", places: Sequence[str], given: Mapping[str, Any], on_error: OnError) -> "Flight | None":
    """The record that --flight names; None where it names none, or the tags of photographs."""
    from geodtr.runtime.flights.frames import read_flight

    named, start = given.get("flight"), given.get("flight_start")
    if named is None:
        if frames.kind == "video" and places and (beside := _beside(Path(places[0]))) is not None:
            messages.print(f"A flight record is beside the video; to use it: --flight {beside}")
        return None
    if not places:
        raise ConfigError("--flight is of IMAGES, and none are given: name the video, or the photographs.")
    if named == TAGS:
        if frames.kind != "images":
            raise ConfigError("--flight exif takes the tags of photographs, and a video has none: name its record.")
        return None
    if frames.kind != "video":
        raise ConfigError(f"--flight {named} belongs to one video: name it alone. Photographs have tags: --flight exif")
    if start is not None and not isfinite(start):
        raise ConfigError(f"--flight-start is {start}; a finite number of seconds is needed.")
    return read_flight(Path(named), leaving_out(on_error, DataError, "entries"))


def with_given_flight(
    frames: "Frames", flight: "Flight | None", given: Mapping[str, Any], radius: float | None
) -> "Frames":
    """The frames with what --flight names states of each: `flight`, or the tags of photographs."""
    from geodtr.runtime.flights.frames import Joining, with_flight, with_tags

    heights = {"altitude", "frame_metres"}.isdisjoint(given)
    joining = Joining(radius, heights, given.get("fov"))
    if flight is not None:
        joined = with_flight(frames.frames, flight, given.get("flight_start"), joining)
        say_what_was_read(flight)
        return replace(frames, frames=joined)
    return replace(frames, frames=with_tags(frames.frames, joining)) if "flight" in given else frames


def flown(flight: "Flight | None", given: Mapping[str, Any]) -> "tuple[Odometry, float]":
    """The motion of --track flight, and its time at the start of the video."""
    from geodtr.runtime.flights.frames import video_start
    from geodtr.runtime.flights.odometry import odometry_of

    if flight is None:
        raise ConfigError("--track flight takes the motion of a video's record: give a video and --flight RECORD.")
    motion = odometry_of(flight)
    for line in (f"motion by {', '.join(motion.sources)}", *motion.notes):
        messages.print(f" {line}", soft_wrap=True)
    return motion.odometry, video_start(flight, given.get("flight_start"))


def say_what_was_read(flight: "Flight") -> None:
    """Where each value comes from, and how the file was understood."""
    import numpy as np

    columns = ", ".join(
        f"{field.replace('_', ' ')} by {column.origin} ({np.isfinite(column.values).mean():.0%})"
        for field, column in flight.columns.items()
    )
    times = f"{flight.times[0]:g} to {flight.times[-1]:g} s"
    messages.print(f"{flight.name}: {len(flight.times)} entries, {times}: {columns}")
    for note in flight.notes:
        messages.print(f" {note}")


def say_how_far_off(metres: Sequence[float], recorded: int, count: int) -> None:
    """Answers against the recorded positions, which are taken for the truth."""
    if recorded:
        off = ""
        if metres:
            import numpy as np

            middle, most = np.quantile(metres, (0.5, 0.95))
            off = f"; {len(metres)} answers are off by {middle:.1f} m (median), 95 % by up to {most:.1f} m"
        messages.print(f"Recorded positions: {recorded} of {count} images{off}")


def _beside(video: Path) -> Path | None:
    """A flight record of the video's name."""
    names = [video.with_suffix(suffix) for suffix in (".SRT", ".srt")]
    return next((name for name in names if name.is_file()), None)
