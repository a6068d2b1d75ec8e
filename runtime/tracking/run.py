"""A drive localised: its moments in order, each with the frame taken there, through the filter."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from geodtr.runtime.embed.pipeline import OnBadFrame, stop
from geodtr.runtime.errors import ImageError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.ground_size import LEAST_RATIO
from geodtr.runtime.tracking.filter import Sighting, Tracker, TrackOptions, TrackPoint, sighted
from geodtr.runtime.tracking.odometry import STANDING, Odometry
from geodtr.runtime.tracking.synchronize import Moment, by_row


class Locates(Protocol):
    """What a track needs of a Localizer."""

    @property
    def gallery(self) -> Gallery: ...

    def require_positions(self, what: str) -> None: ...

    def locate(self, image: Frame, top: int = 5, *, near: Near | None = None) -> Localisation: ...


@dataclass(frozen=True, slots=True)
class Tracked:
    """One moment: its time in seconds, its image's name, the image's own localisation, and the filter's estimate.

    Without an image, or with an unreadable one, `located` is None and the filter uses the odometry alone.
    """

    time: float
    image: str | None
    point: TrackPoint
    located: Localisation | None

    @property
    def waypoint(self) -> Waypoint:
        """The filter's estimate, with what the frame's own answer has beside it."""
        point = self.point
        own = Waypoint(point.state) if self.located is None else self.located.waypoint
        tracked = replace(
            own,
            state=point.state,
            image=self.image,
            time_s=self.time,
            lat=point.lat,
            lon=point.lon,
            heading=point.heading,
            within_68_m=point.within_68,
            within_95_m=point.within_95,
            own_lat=own.lat,
            own_lon=own.lon,
        )
        return tracked.beside(own.recorded)


def track_odometry(
    localizer: Localizer,
    odometry: Odometry,
    options: TrackOptions | None = None,
    top: int = 5,
    *,
    near: Near | None = None,
    on_error: OnBadFrame = stop,
    track: Track = untracked,
) -> Iterator[Tracked]:
    """`track_moments` of a drive whose rows name the images."""
    moments = track(by_row(odometry), "Tracking", odometry.count)
    return track_moments(localizer, moments, options, top, near=near, on_error=on_error)


def track_moments(
    localizer: Locates,
    moments: Iterable[Moment],
    options: TrackOptions | None = None,
    top: int = 5,
    *,
    near: Near | None = None,
    on_error: OnBadFrame = stop,
) -> Iterator[Tracked]:
    """Each moment as it is done, with the `top` tiles of its frame, at most those that the filter goes by. `near`:
    frames search only tiles within a prior. An image that `on_error` lets pass is a gap. Where `localizer` searches
    headings, the panorama's middle column is taken to look forward, a nadir frame's upper edge to point there.

    Raises GalleryError when no tile of the gallery has a position, ImageError, naming the bad image.
    """
    localizer.require_positions("a track")
    tracker, count = Tracker(options), sighted(len(localizer.gallery))
    for moment in moments:
        located = None
        if moment.frame is not None:
            try:
                located = localizer.locate(moment.frame, count, near=near)
            except ImageError as error:
                on_error(moment.frame, error)
        *before, last = moment.motions or (STANDING,)
        for motion in before:
            tracker.move(motion)
        point = tracker.step(last, None if located is None else sighting_of(located))
        shown = None if located is None else replace(located, candidates=located.candidates[:top])
        yield Tracked(moment.time, None if moment.frame is None else moment.frame.name, point, shown)


def sighting_of(located: Localisation) -> Sighting | None:
    """What the filter takes of a frame's answer: its tiles, or where a second stage was asked, the position that this
    found, and nothing where it refused.
    """
    nadir = located.nadir
    if nadir is not None and nadir.unrefined is not None:
        return None
    if nadir is not None and nadir.refined is not None:
        refined = nadir.refined
        lat, lon, heading = (np.array([value]) for value in (refined.lat, refined.lon, refined.heading))
        # What a tilted frame's middle shows may be as far from the camera as a tile's centre.
        covariance = refined.covariance_m2 if refined.camera else None
        return Sighting(np.ones(1, np.float32), lat, lon, heading, covariance)
    candidates = located.candidates
    lat, lon = (np.array([getattr(each.place, name) for each in candidates], np.float64) for name in ("lat", "lon"))
    scores = np.array([each.score for each in candidates], np.float32)
    headings = None if located.heading is None else np.array([each.heading for each in candidates], np.float64)
    return Sighting(scores, lat, lon, headings, sights=_sights([each.tile_metres for each in candidates]))


def _sights(sides: Sequence[float | None]) -> Floats | None:
    """A quarter of each tile's side, where these are of several sizes: the filter's own value is for one."""
    known = np.array([side for side in sides if side is not None], np.float64)
    if len(known) < len(sides) or not len(known) or known.max() < LEAST_RATIO * known.min():
        return None
    return known / 4
