"""One frame's result as a flat record: the one schema of every output, docs/localisation.md.

Values only: knows nothing of search or writing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any, Literal

from geodtr.runtime.geodesy import distance
from geodtr.runtime.images.recorded import Recorded
from geodtr.runtime.sources.tile import Tile

TrackState = Literal["searching", "tracking", "lost"]
"""`searching`: no position yet. `tracking`: the particles agree with each other and with the frames. `lost`: they no
longer do."""

PositionOf = Literal["tiles", "camera", "middle"]
"""What a frame's own position is of. `tiles`: the mean of the tiles found. `camera`: the camera, by the second stage.
`middle`: what the frame's middle shows, by the second stage without a field of view."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tile that may match a query: its gallery row, its tile, and its cosine similarity (-1..1).

    `heading` is the query's heading that matched, in degrees clockwise from north; None if headings were not searched.
    `ground_metres` is the width on the ground under which a nadir frame matched, `tile_metres` the tile's own side,
    where it is known.
    """

    row: int
    place: Tile
    score: float
    heading: float | None = None
    ground_metres: float | None = None
    tile_metres: float | None = None


@dataclass(frozen=True, slots=True)
class Waypoint:
    """One frame's result. `state` is "fix" or "no fix" for a single image, or a track's state. Unknown values are None.

    Times in seconds; lat, lon and heading in degrees (heading clockwise from north); `within_68_m` and `within_95_m` in
    metres: for a single image the calibrated claim, by the second stage of its covariance, for a track the filter's own
    estimate. `candidates` are the image's nearest tiles, best first; `altitude_m` is above the ground. `gnss_lat` and
    `gnss_lon` are where the image's tags or a flight record say that it was taken, and `gnss_off_m` is the distance
    from there.

    The others are the image's own, in a track too, where `own_lat` and `own_lon` are its own position: `position_of`,
    `spread_m` and `margin` of a fix, `corrected_m`, how far a calibration moved it against a bias, and what a second
    stage found, as `Refined` has it. `uncalibrated` and `doubt`: see Localisation; `unrefined`: see Nadir.
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
    position_of: PositionOf | None = None
    own_lat: float | None = None
    own_lon: float | None = None
    covariance_m2: tuple[float, float, float] | None = None
    matches: int | None = None
    inliers: int | None = None
    refined_tile: str | None = None
    tilt: float | None = None
    ground_metres: float | None = None
    uncalibrated: str | None = None
    unrefined: str | None = None
    doubt: str | None = None
    recorded: Recorded | None = None

    def beside(self, recorded: Recorded | None) -> "Waypoint":
        """The same with what is recorded of its frame, and how far off a recorded position is."""
        at = None if recorded is None else recorded.position
        if at is None:
            return replace(self, recorded=recorded)
        here = None if self.lat is None or self.lon is None else (self.lat, self.lon)
        off = None if here is None else round(float(distance(*here, *at)), 3)
        return replace(self, recorded=recorded, gnss_lat=at[0], gnss_lon=at[1], gnss_off_m=off)

    @property
    def reliable(self) -> bool:
        """Whether it belongs on a map's line: a fix, or a point of a filter that is not lost."""
        return self.state in ("fix", "tracking") and self.lat is not None


def runs(waypoints: Iterable[Waypoint]) -> list[list[Waypoint]]:
    """Successive waypoints that are reliable, in runs: what a map joins by a line."""
    return [list(run) for reliable, run in groupby(waypoints, lambda waypoint: waypoint.reliable) if reliable]


def record(waypoint: Waypoint) -> dict[str, Any]:
    """A waypoint as values that JSON has, its candidates as a flat list."""
    values = {field.name: getattr(waypoint, field.name) for field in fields(waypoint)}
    return values | {"candidates": [_flat(candidate) for candidate in waypoint.candidates]}


def scalars(waypoint: Waypoint) -> dict[str, Any]:
    """A waypoint's values that are one number or text each, for outputs that have nothing else: without candidates and
    origins, the covariance in three.
    """
    values = {
        field.name: getattr(waypoint, field.name)
        for field in fields(waypoint)
        if field.name not in ("candidates", "recorded", "covariance_m2")
    }
    names = ("covariance_ee_m2", "covariance_en_m2", "covariance_nn_m2")
    return values | dict(zip(names, waypoint.covariance_m2 or (None, None, None), strict=True))


def _flat(candidate: Candidate) -> dict[str, Any]:
    place = candidate.place
    return {
        "row": candidate.row,
        "tile": place.id,
        "file": place.file,
        "score": candidate.score,
        "lat": place.lat,
        "lon": place.lon,
        "heading": candidate.heading,
        "ground_metres": candidate.ground_metres,
        "tile_metres": candidate.tile_metres,
    }
