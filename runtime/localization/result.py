"""Results of localisation: an image's tiles and fix, and what a second stage makes of a nadir frame.

Values only: knows nothing of search or writing.
"""

from dataclasses import dataclass, replace
from math import hypot

from geodtr.runtime.images.recorded import Recorded
from geodtr.runtime.localization.fix import SIGMAS_68, SIGMAS_95, Fix, largest_sigma
from geodtr.runtime.localization.waypoint import Candidate, Waypoint


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

    @property
    def sigma_m(self) -> float:
        """The standard deviation in the direction in which it is largest, in metres."""
        return largest_sigma(self.covariance_m2)

    def placed(self, found: Waypoint) -> Waypoint:
        """The record of its frame, with this position in place of the tiles'."""
        return replace(
            found,
            state="fix",
            position_of="camera" if self.camera else "middle",
            lat=self.lat,
            lon=self.lon,
            heading=self.heading,
            within_68_m=SIGMAS_68 * self.sigma_m,
            within_95_m=SIGMAS_95 * self.sigma_m,
            covariance_m2=self.covariance_m2,
            matches=self.matches,
            inliers=self.inliers,
            refined_tile=self.tile,
            altitude_m=self.altitude,
            tilt=self.tilt,
            ground_metres=self.ground_metres,
        )


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
        fix, nadir = self.fix, self.nadir
        refined, unrefined = (None, None) if nadir is None else (nadir.refined, nadir.unrefined)
        answer = Waypoint(
            state="no fix",
            image=self.image,
            time_s=self.time,
            heading=self.heading,
            altitude_m=None if nadir is None else nadir.altitude,
            ground_metres=None if nadir is None else nadir.ground_metres,
            candidates=self.candidates,
            uncalibrated=self.uncalibrated,
            unrefined=unrefined,
            doubt=self.doubt,
        )
        if refined is not None:
            answer = refined.placed(answer)
        elif fix is not None and unrefined is None:
            within = {radius.share: radius.metres for radius in fix.within}
            answer = replace(
                answer,
                state="fix",
                position_of="tiles",
                lat=fix.lat,
                lon=fix.lon,
                within_68_m=within.get(0.68),
                within_95_m=within.get(0.95),
                spread_m=fix.spread,
                margin=fix.margin,
                corrected_m=None if fix.corrected_m is None else hypot(*fix.corrected_m),
            )
        return answer.beside(self.recorded)
