"""The options of `localize` that read frames from a recording, and record answers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodtr.cli.console import warn
from geodtr.cli.options import OnError, leaving_out
from geodtr.export.options import from_given, option
from geodtr.runtime.errors import DataError

if TYPE_CHECKING:
    from geodtr.runtime.images.camera_model import CameraModel
    from geodtr.runtime.images.frames import Frames
    from geodtr.runtime.localization.waypoint import Waypoint
    from geodtr.runtime.recordings.pictures import Pictures


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What the group of options holds."""

    bag: Path | None = option(None, "Localise the frames of a ROS 2 bag (a folder, .db3 or .mcap).", "FILE|FOLDER")
    topic: str | None = option(
        None, "Topic with the images.", "TOPIC", shown="the only one of type Image or CompressedImage"
    )
    camera_topic: str | None = option(None, "Undistort by the calibration in this topic (CameraInfo).", "TOPIC")
    truth_topic: str | None = option(None, "Report the distance from this topic's positions (NavSatFix).", "TOPIC")
    prior_topic: str | None = option(
        None, "Search near the last position of this topic (NavSatFix); a frame without one is a bad image.", "TOPIC"
    )
    prior_radius: float = option(500.0, "How far from it tiles are searched.", "METRES")
    prior_age: float = option(2.0, "How old it may be.", "SECONDS")
    mcap: Path | None = option(None, "Record answers and small pictures in a new MCAP file, for Foxglove.", "FILE.mcap")


@dataclass(frozen=True, slots=True)
class Playback:
    """What the options ask for: `frames` of a recording with what else it knows, and the recording to write."""

    frames: "Frames | None" = None
    camera: "CameraModel | None" = None
    mcap: Path | None = None
    pictures: "Pictures | None" = None

    def drawn(self, frames: "Frames") -> "Frames":
        """The frames, each drawn as it passes where they are recorded."""
        return frames if self.pictures is None else self.pictures.of(frames)

    def undistorted(self, taking: dict[str, Any]) -> dict[str, Any]:
        """How images were taken, with the recording's camera."""
        if self.camera is None:
            return taking
        how = "nadir" if "nadir" in taking else "intake"
        return taking | {how: replace(taking[how], camera=self.camera)}

    def writers(self, *, live: bool) -> "Iterator[AbstractContextManager[Callable[[Waypoint], object]]]":
        """What takes each answer."""
        if self.mcap is not None and self.pictures is not None:
            from geodtr.runtime.recordings.foxglove import mcap_file

            yield mcap_file(self.mcap, self.pictures, warn, live=live)


def playback_of(given: Mapping[str, Any], *, every: int, limit: int | None, on_error: OnError) -> Playback:
    """What the options ask for."""
    options: RecordingOptions = from_given(RecordingOptions, given)
    pictures = None
    if options.mcap is not None:
        from geodtr.runtime.recordings.foxglove import check_mcap
        from geodtr.runtime.recordings.pictures import Pictures

        check_mcap(options.mcap)
        pictures = Pictures()
    if options.bag is None:
        return Playback(mcap=options.mcap, pictures=pictures)
    from geodtr.runtime.recordings.bag import Recording
    from geodtr.runtime.recordings.receiver import Prior

    recording = Recording(options.bag)
    topic = options.topic or recording.only_images()
    named = [each for each in (options.prior_topic, options.truth_topic) if each is not None]
    on_bad = leaving_out(on_error, DataError, "entries")
    tracks = {each: recording.track(each, on_bad) for each in dict.fromkeys(named)}
    prior = None
    if options.prior_topic is not None:
        prior = Prior(tracks[options.prior_topic], options.prior_radius, options.prior_age)
    truth = None if options.truth_topic is None else tracks[options.truth_topic]
    return Playback(
        frames=recording.frames(topic, every=every, limit=limit, prior=prior, truth=truth),
        camera=None if options.camera_topic is None else recording.camera(options.camera_topic),
        mcap=options.mcap,
        pictures=pictures,
    )
