"""Frames of a video with what a flight record states of each, and images with what their own tags state."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.flights import srt, table
from geodtr.runtime.flights.record import Flight, OnBadEntry
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.recorded import Recorded, Stated, ground_seen
from geodtr.runtime.sources.positioned.photograph import read_photograph

READERS = {srt.SUFFIX: srt.read_srt, table.SUFFIX: table.read_table}


def read_flight(path: Path, on_bad: OnBadEntry) -> Flight:
    """Read a flight record by its ending; what cannot be right is named to `on_bad`, and left out.

    Raises DataError where it is none, or cannot be read.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path} is no flight record by its ending; allowed: {', '.join(READERS)}.")
    return read(path, on_bad)


@dataclass(frozen=True, slots=True)
class Joining:
    """How what is recorded is used.

    Attributes
    ----------
    radius
        Metres around the recorded position within which tiles are searched; None searches all. With a radius, a frame
        without a recorded position has an ImageError in place of its image.
    heights
        Whether recorded heights are the frames' altitudes.
    field_of_view
        Horizontal, in degrees, in place of a recorded one.
    """

    radius: float | None = None
    heights: bool = True
    field_of_view: float | None = None

    def joined(self, frame: Frame, recorded: Recorded) -> Frame:
        """The frame with its record."""
        if isinstance(frame.image, ImageError):
            return frame
        if self.radius is not None and recorded.position is None:
            error = ImageError(
                f"{frame.called}: no position is recorded of it, so there is none to search {self.radius:g} m around. "
                "To leave such images out: --on-error skip"
            )
            return replace(frame, recorded=recorded, image=error)
        if self.field_of_view is not None:
            view = Stated(self.field_of_view, "as given")
            ground = ground_seen(recorded.height, view, recorded.tilt)
            recorded = replace(recorded, field_of_view=view, ground_metres=ground)
        at, height = recorded.position, recorded.height
        near = None if at is None or self.radius is None else Near(*at, self.radius)
        above = height is not None and self.heights and height.value > 0
        altitude = height.value if height is not None and above else frame.altitude
        return replace(frame, recorded=recorded, near=near, altitude=altitude)


def video_start(flight: Flight, stated: float | None = None) -> float:
    """The record's time at which the video begins: as `stated`, or as the record has it.

    Raises ConfigError where neither is known.
    """
    start = flight.start if stated is None else stated
    if start is None:
        videos = "; ".join(f"from {begin:g} s, {end - begin:.1f} s long" for begin, end in flight.videos[:8])
        raise ConfigError(
            f"{flight.name} does not say when this video begins: it has {len(flight.videos) or 'no'} videos "
            f"({videos or 'no column for them'}). Give the record's time at the video's start: --flight-start SECONDS"
        )
    return start


def with_flight(
    frames: Iterable[Frame], flight: Flight, start: float | None = None, joining: Joining = Joining()
) -> Iterator[Frame]:
    """The frames of a video, each with what `flight` states at its time; the video begins at the record's `start`.

    Raises ConfigError where it is not known when the video begins.
    """
    began = video_start(flight, start)
    return (
        frame if frame.time is None else joining.joined(frame, flight.at(began + frame.time, frame.name))
        for frame in frames
    )


def with_tags(frames: Iterable[Frame], joining: Joining = Joining()) -> Iterator[Frame]:
    """The frames, each with what its file's own tags state; one whose tags are wrong yields its error."""
    for frame in frames:
        if not isinstance(frame.image, Path):  # of a video: it has no tags
            yield frame if joining.radius is None else joining.joined(frame, Recorded(frame.name))
            continue
        try:
            yield joining.joined(frame, read_photograph(frame.image))
        except (ImageError, DataError) as error:
            yield replace(frame, image=ImageError(str(error)))
