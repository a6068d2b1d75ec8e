"""Frames that look straight down: each is supposed to have several headings and ground sizes, all searched at once.

A nadir frame is an aerial image, so the aerial branch embeds it. Knows crops, scores and hypotheses; knows nothing of
galleries.
"""

from dataclasses import dataclass, replace
from math import ceil, exp, isfinite, log
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ArgumentError, ConfigError, ImageError
from geodtr.runtime.images.altitudes import HIGHEST
from geodtr.runtime.images.camera_model import CameraModel
from geodtr.runtime.images.nadir import ground_width, north_up, share_covered
from geodtr.runtime.images.preprocess import preprocess
from geodtr.runtime.images.recorded import Recorded
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.spec import Images, Preprocessing

MOST = 1024
"""Hypotheses for one frame: they are embedded in one batch."""

_LEAST_COVERED = 0.1
"""A frame that shows less of a tile is not searched: the fill would decide."""

_STEEPEST = 30.0
"""Degrees of tilt up to which a frame looks down."""


_HEADING_ERROR = 8.0
"""Degrees that a stated heading may be off."""
_TURN, _STRETCH, _MOST_STEPS = 4.0, 0.04, 5
"""Degrees and share from one step of a finer search to the next, and the steps to either side at most."""


def _steps(error: float, step: float) -> list[float]:
    """Equal steps from -error to error, near to `step`, with the middle one 0."""
    count = min(_MOST_STEPS, max(0, ceil(error / step - 0.5)))
    return [error * index / max(1, count) for index in range(-count, count + 1)]


@dataclass(frozen=True, slots=True)
class NadirOptions:
    """How frames that look straight down are searched: at `rotations` equal steps of a full turn, times `ground_sizes`.

    A frame's ground size is the width that it shows, in metres. It is known by the altitude (metres above the ground;
    the frame's own, or `altitude` for all) and `fov` (degrees, the angle of the frame's width) or `camera`, a
    calibration that frames are undistorted by, uncertain by the share `size_error`; or lies within `frame_metres`, a
    range. Sizes are spread evenly, each larger by the same factor.
    `heading` is for frames whose upper edge points in a known direction (degrees clockwise from north); then no
    rotation is searched. `tile_metres` is the side of the gallery's tiles on the ground, as the tiles say where it is
    None. Raises ConfigError naming a value out of range.
    """

    altitude: Annotated[float | None, Meta(ge=1, le=HIGHEST, description="m above the ground")] = None
    fov: Annotated[float | None, Meta(ge=1, le=170, description="degrees")] = None
    frame_metres: tuple[float, float] | None = None
    size_error: Annotated[float, Meta(ge=0, le=1)] = 0.2
    ground_sizes: Annotated[int, Meta(ge=1, le=MOST)] = 3
    rotations: Annotated[int, Meta(ge=1, le=360)] = 16
    heading: Annotated[float | None, Meta(ge=-360, le=360, description="degrees")] = None
    tile_metres: Annotated[float | None, Meta(ge=1, le=100_000, description="m")] = None
    camera: CameraModel | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ground_sizes * self.steps > MOST:
            raise ConfigError(
                f"{self.steps} rotations x {self.ground_sizes} ground sizes are more than {MOST}, which are embedded "
                "in one batch. Search fewer."
            )
        if self.camera is not None and self.fov is not None:
            raise ArgumentError("fov", "is stated by {} too: leave it out.", "camera")
        if self.frame_metres is not None:
            low, high = self.frame_metres
            if not (0 < low <= high and isfinite(high)):
                raise ArgumentError("frame_metres", f"is {low:g} to {high:g} m; it must be above 0, and rise.")

    def of(self, recorded: Recorded | None, altitude: float | None = None) -> "NadirOptions":
        """The options of one frame of this altitude: its recorded heading and field of view stand in for unknown ones.

        Raises ImageError where the record states that its camera did not look down, or a height below take-off in place
        of an altitude.
        """
        if recorded is None:
            return self
        tilt, heading, view, height = recorded.tilt, recorded.heading, recorded.field_of_view, recorded.height
        unknown = altitude is None and self.altitude is None and self.frame_metres is None
        if unknown and height is not None and height.value <= 0:
            raise ImageError(
                f"its height is {height.value:g} m ({height.origin}), which is no altitude above the ground. State it, "
                "--altitude 80, or the frame's width in metres, --frame-metres 60,140."
            )
        if tilt is not None and tilt.value > _STEEPEST:
            raise ImageError(
                f"its camera was tilted by {tilt.value:.0f}° from straight down ({tilt.origin}); up to {_STEEPEST:g}° "
                "count as looking down."
            )
        return replace(
            self,
            heading=heading.value if self.heading is None and heading is not None else self.heading,
            fov=view.value if self.field_of_view is None and view is not None else self.fov,
        )

    @property
    def field_of_view(self) -> float | None:
        """The angle of the width of a frame, undistorted where there is a calibration, in degrees; None where it is
        not known.
        """
        return self.fov if self.camera is None else self.camera.field_of_view

    @property
    def steps(self) -> int:
        """How many headings are searched."""
        return self.rotations if self.heading is None else 1

    @property
    def headings(self) -> Floats:
        """The headings that are searched, degrees [N]."""
        if self.heading is not None:
            return np.array([self.heading % 360])
        return np.arange(self.rotations, dtype=np.float64) * (360 / self.rotations)

    def widths(self, altitude: float | None = None) -> Floats:
        """The widths on the ground that are searched for a frame of this altitude, metres [M], rising.

        Raises ImageError as `width_range`.
        """
        low, high = self.width_range(altitude)
        if self.ground_sizes == 1:
            return np.array([float(np.sqrt(low * high))])
        return np.asarray(np.geomspace(low, high, self.ground_sizes), np.float64)

    def width_range(self, altitude: float | None = None) -> tuple[float, float]:
        """The least and the largest width on the ground that a frame of this altitude may have, in metres.

        Raises ImageError when it is not known how much ground it shows.
        """
        known = self.altitude if altitude is None else altitude
        view = self.field_of_view
        if known is not None and view is not None:
            if not known > 0:
                raise ImageError(f"its altitude is {known:g} m; it must be above 0, over the ground.")
            width = ground_width(known, view)
            return width / (1 + self.size_error), width * (1 + self.size_error)
        if self.frame_metres is not None:
            return self.frame_metres
        raise ImageError(
            "how much ground it shows is not known: give the altitude above the ground and the field of view of the "
            "frame's width (--altitude 80 --fov 70, or --undistort FILE), or a range of its width in metres "
            "(--frame-metres 60,140)."
        )

    @property
    def finer_headings(self) -> list[float]:
        """Degrees that a heading found by the search may still be off, in steps."""
        return _steps(180 / self.steps if self.steps > 1 else _HEADING_ERROR, _TURN)

    @property
    def finer_widths(self) -> list[float]:
        """Factors by which a width found by the search may still be off, in steps."""
        error = 0.0 if self.field_of_view is None else log(1 + self.size_error)
        if self.frame_metres is not None:
            error = max(error, log(self.frame_metres[1] / self.frame_metres[0]) / 2)
        return [exp(step) for step in _steps(error / max(1, self.ground_sizes - 1), _STRETCH)]

    def altitude_of(self, width: float) -> float | None:
        """The altitude at which a frame shows this width; None where the field of view is unknown."""
        view = self.field_of_view
        return None if view is None else width / ground_width(1.0, view)


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """A frame on the supposition of each of H headings and widths: `images` for the engine, uint8 [H, h, w, 3], by
    width and within it by heading. `width_range` holds the width.
    """

    images: Images
    headings: Floats
    widths: Floats
    width_range: tuple[float, float]


def suppose(
    frame: Image.Image,
    altitude: float | None,
    options: NadirOptions,
    tile_metres: float,
    tile_pixels: int,
    how: Preprocessing,
) -> Hypotheses:
    """Crop a frame, RGB, to the ground that a tile shows, `tile_metres` in `tile_pixels`, for every supposition.

    Raises ImageError where a frame shows too little of a tile's ground, or it is not known how much it shows.
    """
    images, resolution = [], tile_metres / tile_pixels
    widths = options.widths(altitude)
    for width in widths:
        covered = share_covered(frame.size, width / frame.width, tile_metres)
        if covered < _LEAST_COVERED:
            raise ImageError(
                f"it shows {width:.0f} m x {width * frame.height / frame.width:.0f} m of ground, and tiles are "
                f"{tile_metres:g} m wide. Build a gallery of smaller tiles, or check the altitude."
            )
        crops = north_up(frame, width / frame.width, options.headings.tolist(), tile_pixels, resolution)
        images += [preprocess(Image.fromarray(crop), how) for crop in crops]
    return Hypotheses(
        np.stack(images),
        np.tile(options.headings, options.ground_sizes),
        np.repeat(widths, options.steps),
        options.width_range(altitude),
    )


@dataclass(frozen=True, slots=True)
class Pose:
    """The heading (degrees clockwise from north) and the width on the ground (metres) of a frame."""

    heading: float
    width: float


def sharpened(hits: Hits, row: int, best: int, supposed: Hypotheses, options: NadirOptions) -> Pose:
    """The pose under which reference `row` matches best: hypothesis `best`, moved to the top of a parabola through its
    score and its neighbours', where these found the reference as well. `hits` of the H hypotheses, [H, K].
    """
    same = hits.rows == row
    scores = np.where(same.any(axis=1), np.where(same, hits.scores, -np.inf).max(axis=1), np.nan)
    table = scores.reshape(options.ground_sizes, options.steps)
    size, step = divmod(best, options.steps)
    heading, width = supposed.headings[best], supposed.widths[best]
    if options.steps >= 4:
        turned = (step + np.arange(-1, 2)) % options.steps
        heading = heading + 360 / options.steps * peak(table[size, turned])
    if 0 < size < options.ground_sizes - 1:
        factor = supposed.widths[-1] / supposed.widths[0]
        width = width * factor ** (peak(table[size - 1 : size + 2, step]) / (options.ground_sizes - 1))
    return Pose(float(heading % 360), float(width))


def peak(scores: NDArray[np.floating]) -> float:
    """Where a parabola through three equally spaced scores is highest, from -0.5 to 0.5 steps from the middle one; 0
    where a score is missing.
    """
    before, middle, after = (float(score) for score in scores)
    bend = before - 2 * middle + after
    if not bend < 0:  # NaN, or flat
        return 0.0
    return min(0.5, max(-0.5, (before - after) / (2 * bend)))
