"""A drive localised: odometry's rows in the order of time, each with the image taken there, through the filter."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from geodtr.runtime.errors import ImageError
from geodtr.runtime.geodesy import Near
from geodtr.runtime.localizer import Localisation, Localizer
from geodtr.runtime.odometry import Odometry
from geodtr.runtime.pipeline import OnError, stop
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.track import Tracker, TrackOptions, TrackPoint, sighted
from geodtr.runtime.waypoints import Waypoint


@dataclass(frozen=True, slots=True)
class Tracked:
    """One row: its time in seconds, its image, what that image alone says, and what the filter believes. Without an
    image, or with one that could not be read, `located` is None and the filter goes by the odometry alone.
    """

    time: float
    image: Path | None
    point: TrackPoint
    located: Localisation | None

    @property
    def waypoint(self) -> Waypoint:
        point = self.point
        return Waypoint(
            state=point.state,
            image=None if self.image is None else str(self.image),
            time_s=self.time,
            lat=point.lat,
            lon=point.lon,
            heading=point.heading,
            within_68_m=point.within_68,
            within_95_m=point.within_95,
        )


def track_odometry(
    localizer: Localizer,
    odometry: Odometry,
    options: TrackOptions | None = None,
    top: int = 5,
    *,
    near: Near | None = None,
    on_error: OnError = stop,
    track: Track = untracked,
) -> Iterator[Tracked]:
    """Each row as it is done, with the `top` tiles of its image, at most those that the filter goes by. `near`:
    frames search only tiles within a prior. An image that `on_error` lets pass is a gap. Where `localizer` searches
    headings, the panorama's middle column is taken to look forward.

    Raises GalleryError when no tile of the gallery has a position, ImageError, naming the bad file.
    """
    localizer.require_positions("a track")
    tracker, count = Tracker(options), sighted(len(localizer.gallery))
    for step in track(odometry.steps, "Tracking", len(odometry.steps)):
        located = None
        if step.image is not None:
            try:
                located = localizer.locate(step.image, count, near=near)
            except ImageError as error:
                on_error(step.image, error)
        point = tracker.step(step.motion, None if located is None else located.sighting)
        shown = None if located is None else replace(located, candidates=located.candidates[:top])
        yield Tracked(step.time, step.image, point, shown)
