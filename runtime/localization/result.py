"""Results of localisation: candidates, a fix, and the flat record of each frame for files.

Values only: knows nothing of search or writing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import groupby
from math import hypot
from typing import Any, Literal

from geodtr.runtime.geodesy import distance
from geodtr.runtime.images.recorded import Recorded
from geodtr.runtime.localization.fix import Fix
from geodtr.runtime.sources.tile import Tile

TrackState = Literal["searching", "tracking", "lost"]
"""`searching`: no position yet. `tracking`: the particles agree with each other and with the frames. `lost`: they no
longer do."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile that may match a query: its gallery row, its tile, and its cosine similarity (-1..1).

    `heading` is the query's heading that matched, in degrees clockwise from north; None if headings were not searched.
    `ground_metres` is the width on the ground under which a nadir frame matched.
    """

    row: int
    place: Tile
    score: float
    heading: float | None = None
    ground_metres: float | None = None


@dataclass(frozen=True, slots=True)
class Refined:
    """A nadir frame's position by features that it has in common with the map, in degrees (WGS 84).

    It is the camera's, the point below it, if `camera`; otherwise the position that the frame's middle shows. `heading`
    is where the frame's upper edge points, degrees clockwise from north; `ground_metres` the width that the frame shows
    around its middle, or would show without tilt. `altitude` is in metres above the ground and `tilt` in degrees from
    the vertical, None without a field of view. `inliers` of `matches` agree, found around the tile `tile`.
    `covariance_m2` is the position's in metres squared: east east, east north, north north. It follows from how far the
    inliers scatter, and knows nothing of an error of the map, or of heights that the map does not show.
    """

    lat: float
    lon: float
    camera: bool
    heading: float
    ground_metres: float
    altitude: float | None
    tilt: float | None
    tile: str
    matches: int
    inliers: int
    covariance_m2: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Nadir:
    """What is known of a frame that looks straight down, beside its place.

    `ground_metres` is the width on the ground under which it matches best, None if only one was searched; `altitude`
    the metres above the ground at which it shows so much, None without a field of view. `refined` is the second
    stage's answer; `unrefined` is the reason why it has none, both None if it was not asked.
    """

    ground_metres: float | None
    altitude: float | None
    refined: Refined | None = None
    unrefined: str | None = None


@dataclass(frozen=True, slots=True)
class Waypoint:
    """One frame's result. `state` is "fix" or "no fix" for a single image, or a track's state.

    Times in seconds; lat, lon and heading in degrees (heading clockwise from north); `within_68_m` and `within_95_m` in
    metres: for a single image the calibrated claim, for a track the filter's own estimate. `spread_m` and `margin` are
    the image's own fix's, `candidates` its nearest tiles, best first; `altitude_m` is above the ground. `gnss_lat` and
    `gnss_lon` are where the image's tags or a flight record say that it was taken, and `gnss_off_m` is the distance
    from there. `corrected_m` is how far a calibration moved the position against a bias. Unknown values are None.
    """

    state: Literal["fix", "no fix"] | TrackState
    image: str | None = None
    time_s: float | None = None
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    within_68_m: float | None = None
    within_95_m: float | None = None
    spread_m: float | None = None
    margin: float | None = None
    candidates: tuple[Candidate, ...] = ()
    altitude_m: float | None = None
    gnss_lat: float | None = None
    gnss_lon: float | None = None
    gnss_off_m: float | None = None
    corrected_m: float | None = None

    def beside(self, recorded: Recorded | None) -> "Waypoint":
        """The same with the recorded position of its frame, where one is known, and how far off it is."""
        at = None if recorded is None else recorded.position
        if at is None:
            return self
        here = None if self.lat is None or self.lon is None else (self.lat, self.lon)
        off = None if here is None else round(float(distance(*here, *at)), 3)
        return replace(self, gnss_lat=at[0], gnss_lon=at[1], gnss_off_m=off)

    @property
    def reliable(self) -> bool:
        """Whether it belongs on a map's line: a fix, or a point of a filter that is not lost."""
        return self.state in ("fix", "tracking") and self.lat is not None


@dataclass(frozen=True, slots=True)
class Localisation:
    """A query image and its nearest tiles, best first.

    `image` and `time` are the frame's (images/frames.py): a path, or `drive.mp4#57` at 5.7 seconds; both None
    for pixels without a file. `fix` is None where no tile found has a position. `heading` is the best tile's; None
    unless headings were searched and the image is a full turn, or its file states one. `uncalibrated` is the reason why
    the fix claims no radius; None where it claims one. `doubt` is why the image is none that the model was trained on;
    None where nothing speaks against it. `nadir` is for frames that look straight down. `recorded` is what the image's
    tags or a flight record state, each value with its origin.
    """

    image: str | None
    time: float | None
    candidates: tuple[Candidate, ...]
    fix: Fix | None
    heading: float | None
    uncalibrated: str | None
    doubt: str | None = None
    nadir: Nadir | None = None
    recorded: Recorded | None = None

    @property
    def waypoint(self) -> Waypoint:
        """The result as a flat record: the second stage's position where it was asked, and none where it refuses."""
        return self._waypoint.beside(self.recorded)

    @property
    def _waypoint(self) -> Waypoint:
        fix, nadir = self.fix, self.nadir
        altitude = None if nadir is None else nadir.altitude
        if nadir is not None and nadir.refined is not None:
            refined = nadir.refined
            return Waypoint(
                state="fix",
                image=self.image,
                time_s=self.time,
                lat=refined.lat,
                lon=refined.lon,
                heading=refined.heading,
                altitude_m=refined.altitude,
                candidates=self.candidates,
            )
        if fix is None or (nadir is not None and nadir.unrefined is not None):
            return Waypoint(
                state="no fix",
                image=self.image,
                time_s=self.time,
                heading=self.heading,
                altitude_m=altitude,
                candidates=self.candidates,
            )
        within = {radius.share: radius.metres for radius in fix.within}
        return Waypoint(
            state="fix",
            image=self.image,
            time_s=self.time,
            lat=fix.lat,
            lon=fix.lon,
            heading=self.heading,
            within_68_m=within.get(0.68),
            within_95_m=within.get(0.95),
            altitude_m=altitude,
            spread_m=fix.spread,
            margin=fix.margin,
            candidates=self.candidates,
            corrected_m=None if fix.corrected_m is None else hypot(*fix.corrected_m),
        )


def runs(waypoints: Iterable[Waypoint]) -> list[list[Waypoint]]:
    """Successive waypoints that are reliable, in runs: what a map joins by a line."""
    return [list(run) for reliable, run in groupby(waypoints, lambda waypoint: waypoint.reliable) if reliable]


def record(waypoint: Waypoint) -> dict[str, Any]:
    """A waypoint as values that JSON has, its candidates as a flat list."""
    values = {field.name: getattr(waypoint, field.name) for field in fields(waypoint)}
    return values | {"candidates": [_flat(candidate) for candidate in waypoint.candidates]}


def _flat(candidate: Candidate) -> dict[str, Any]:
    place = candidate.place
    return {
        "tile": place.id,
        "file": place.file,
        "score": candidate.score,
        "lat": place.lat,
        "lon": place.lon,
        "heading": candidate.heading,
    }
