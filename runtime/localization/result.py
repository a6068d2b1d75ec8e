"""Results of localisation: candidates, a fix, and the flat record of each frame for files.

Values only: knows nothing of search or writing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Literal

from geodtr.runtime.localization.fix import Fix
from geodtr.runtime.sources.tile import Tile

TrackState = Literal["searching", "tracking", "lost"]
"""`searching`: no position yet. `tracking`: the particles agree with each other and with the frames. `lost`: they no
longer do."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile that may match a query: its gallery row, its tile, and its cosine similarity (-1..1).

    `heading` is the query's heading that matched, in degrees clockwise from north; None if headings were not searched.
    """

    row: int
    place: Tile
    score: float
    heading: float | None = None


@dataclass(frozen=True, slots=True)
class Waypoint:
    """One frame's result. `state` is "fix" or "no fix" for a single image, or a track's state.

    Times in seconds; lat, lon and heading in degrees (heading clockwise from north); `within_68_m` and `within_95_m` in
    metres: for a single image the calibrated claim, for a track the filter's own estimate. `spread_m` and `margin` are
    the image's own fix's, `candidates` its nearest tiles, best first. Unknown values are None.
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
    None where nothing speaks against it.
    """

    image: str | None
    time: float | None
    candidates: tuple[Candidate, ...]
    fix: Fix | None
    heading: float | None
    uncalibrated: str | None
    doubt: str | None = None

    @property
    def waypoint(self) -> Waypoint:
        """The result as a flat record."""
        fix = self.fix
        if fix is None:
            return Waypoint("no fix", self.image, self.time, heading=self.heading, candidates=self.candidates)
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
            spread_m=fix.spread,
            margin=fix.margin,
            candidates=self.candidates,
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
