"""What is recorded of one image, by its own tags or a flight record: where it was taken, where it looked, how high.

Each value has its origin, the tag or column it was read from; what none states stays unknown.
"""

from dataclasses import dataclass
from math import atan, degrees, hypot, sqrt

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.images.nadir import ground_width

_DIAGONAL_35 = sqrt(36**2 + 24**2)
"""Of a 35 mm frame in millimetres, which equivalent focal lengths relate to (CIPA DCG-001)."""

_STEEPEST = 10.0
"""Degrees of tilt up to which the image covers as much ground as one taken straight down, within some per cent."""


Angles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stated:
    """A value and the tag or column that states it."""

    value: float
    origin: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded of one image; None where nothing states it.

    Attributes
    ----------
    file
        The image, or the place in a flight record.
    lat, lon
        Degrees, WGS 84.
    heading
        Direction of the upper edge of a nadir image, else of the line of sight, in degrees clockwise from north.
    tilt
        Angle between the line of sight and straight down, in degrees; 90 looks at the horizon.
    height
        Metres above the place of take-off, which is the ground below only where the land is flat.
    field_of_view
        Horizontal, in degrees.
    ground_metres
        Width of the ground in the image, in metres, for a tilt up to 10 degrees.
    rtk
        Whether the position was corrected to centimetres.
    """

    file: str
    lat: Stated | None = None
    lon: Stated | None = None
    heading: Stated | None = None
    tilt: Stated | None = None
    height: Stated | None = None
    field_of_view: Stated | None = None
    ground_metres: Stated | None = None
    rtk: bool | None = None

    @property
    def position(self) -> tuple[float, float] | None:
        """Latitude and longitude in degrees; None where either is unknown."""
        return None if self.lat is None or self.lon is None else (self.lat.value, self.lon.value)


def width_seen(equivalent_focal: float, size: tuple[int, int]) -> float:
    """The horizontal field of view in degrees of an image of `size` (width, height) whose equivalent focal length,
    which relates to the diagonal, is in millimetres.
    """
    width = _DIAGONAL_35 * size[0] / hypot(*size)
    return degrees(2 * atan(width / (2 * equivalent_focal)))


def ground_seen(height: Stated | None, view: Stated | None, tilt: Stated | None) -> Stated | None:
    """The width of the ground in an image that looks down; None where it is tilted, or something is unknown."""
    if height is None or view is None or tilt is None or tilt.value > _STEEPEST or height.value <= 0:
        return None
    return Stated(ground_width(height.value, view.value), f"{height.origin}, {view.origin}")


def gimbal(pitch: Angles, yaw: Angles, roll: Angles) -> tuple[Angles, Angles]:
    """Tilt from straight down and heading of the upper edge, of a gimbal's angles, all in degrees and float64 [N].

    The pitch is -90 straight down. NaN is unknown, as is all where every angle is 0, which DJI writes where it knows
    none.
    """
    none = (np.nan_to_num(pitch) == 0) & (np.nan_to_num(yaw) == 0) & (np.nan_to_num(roll) == 0)
    upside_down = np.cos(np.radians(np.nan_to_num(roll))) < 0  # the upper edge points the other way
    tilt, heading = np.abs(pitch + 90), (yaw + 180 * upside_down) % 360
    return np.where(none, np.nan, tilt), np.where(none, np.nan, heading)
