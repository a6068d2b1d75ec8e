"""The pose of a frame that looks straight down, by points that it shares with the flat ground.

Points of the frame are in pixels, places of the ground in metres east and north of an anchor, both [N, 2].
"""

from dataclasses import dataclass, replace
from math import atan2, cos, degrees, hypot, radians, sin

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.images.nadir import ground_width
from geodtr.runtime.localization.fix import Floats

_LEAST_AREA = 0.02
"""Share of the frame that the inliers' rectangle covers at least: all in one spot fix no scale."""
_MOST_TILT = 30.0
_MOST_RESCALED = 1.6
"""Factor by which the ground size may differ from the supposed one."""
_CORRELATED, _CORRELATED_FLAT = 1.5, 8.0
"""Factors of the covariances for what matches have in common though they do not overlap, as objects that stand up from
the ground. Measured on rendered frames (docs/howto/nadir.md). A homography follows them more, and only its inliers are
counted.
"""
_LEAST_POINTS, _SINGULAR = 8, 1e-9
_STEPS, _CLOSE = 20, 1e-6
"""Gauss-Newton steps at most, and the share of the altitude by which the last one moves the camera."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Metres east and north of the anchor with their covariance, and the rest of the pose; angles in degrees."""

    place: Floats
    covariance: Floats
    heading: float
    width: float
    altitude: float | None
    tilt: float | None


def homography_of(points: Floats, places: Floats, threshold: float) -> tuple[Floats, NDArray[np.bool_]] | None:
    """The homography from points of the frame to places, and which of them it misses by less than `threshold` metres;
    None where there is none.
    """
    import cv2

    if len(points) < _LEAST_POINTS:
        return None
    # To metres east and south: OpenCV's USAC takes a mirrored plane for an impossible one.
    homography, mask = cv2.findHomography(
        points,
        places * (1, -1),
        cv2.USAC_MAGSAC,
        threshold,
        maxIters=4000,
        confidence=0.9999,
    )
    if homography is None or abs(np.linalg.det(homography)) < _SINGULAR:
        return None
    return np.asarray(np.diag((1.0, -1.0, 1.0)) @ homography, np.float64), mask.ravel().astype(np.bool_)


def through(homography: Floats, points: Floats) -> Floats:
    """Points [N, 2] under a homography, not finite where it takes them to infinity."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ homography.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(mapped[:, :2] / mapped[:, 2:], np.float64)


def flat_pose(
    pixels: Floats, places: Floats, homography: Floats, size: tuple[float, float], independent: float
) -> Pose:
    """What the frame's middle shows, by the homography alone, refined on its inliers."""
    entries = homography.ravel()[:8] / homography[2, 2]
    entries = entries + np.linalg.lstsq(_slopes(entries, pixels), (places - _mapped(entries, pixels)).ravel())[0]
    slopes, missed = _slopes(entries, pixels), (places - _mapped(entries, pixels)).ravel()
    middle = np.array(size) / 2
    variance = missed @ missed / max(1, len(missed) - 8)
    moves = _slopes(entries, middle[None])
    covariance = variance * moves @ np.linalg.pinv(slopes.T @ slopes) @ moves.T * _CORRELATED_FLAT / independent
    here, above, right = _mapped(entries, middle + np.array([(0, 0), (0, -1), (1, 0)]))
    east, north = above - here
    width = float(np.hypot(*(right - here))) * size[0]
    return Pose(here, covariance, degrees(atan2(east, north)) % 360, width, None, None)


def _mapped(entries: Floats, points: Floats) -> Floats:
    return through(np.append(entries, 1.0).reshape(3, 3), points)


def _slopes(entries: Floats, points: Floats) -> Floats:
    """Derivatives of the mapped points by the homography's first eight entries, [2 N, 8]."""
    lifted = np.column_stack([points, np.ones(len(points))])
    below = lifted @ np.append(entries, 1.0)[6:]
    mapped, none = _mapped(entries, points), np.zeros((len(points), 3))
    east, north = (
        np.column_stack([*parts, -mapped[:, axis : axis + 1] * points]) / below[:, None]
        for axis, parts in enumerate(((lifted, none), (none, lifted)))
    )
    return np.stack([east, north], axis=1).reshape(-1, 8)


def camera_pose(
    pixels: Floats,
    places: Floats,
    flat: Pose,
    size: tuple[float, float],
    fov: float,
    tolerance: float,
    independent: float,
) -> Pose:
    """Where the camera is, from points on nearly flat ground; `flat` is where to begin.

    The reprojection errors are minimised by Gauss-Newton steps under Cauchy's weights of the scale `tolerance`, pixels
    of the frame: what stands up from the ground counts little, but is not counted in or out.
    """
    import cv2

    focal = size[0] / ground_width(1.0, fov)
    angle = radians(flat.heading)
    # World (east, north, up) to camera (right, down, ahead), as if it looked straight down.
    rotation = np.array([(cos(angle), -sin(angle), 0), (-sin(angle), -cos(angle), 0), (0, 0, -1)])
    camera = np.append(flat.place, flat.width / ground_width(1.0, fov))
    ground = np.column_stack([places, np.zeros(len(places))])
    for _ in range(_STEPS):
        seen = (ground - camera) @ rotation.T
        missed = pixels - np.array(size) / 2 - focal * seen[:, :2] / seen[:, 2:]
        squared = (missed**2).sum(axis=1)
        weights = 1 / (1 + squared / tolerance**2)
        slopes = _camera_slopes(seen, rotation, focal)
        normal = np.einsum("nij,nik,n->jk", slopes, slopes, weights)
        if not np.isfinite(normal).all():  # a point at the height of the camera
            return replace(flat, place=np.full(2, np.nan))
        step = np.linalg.lstsq(normal, np.einsum("nij,ni,n->j", slopes, missed, weights))[0]
        if not np.isfinite(step).all() or np.abs(step[3:]).max() < _CLOSE * camera[2]:
            break
        rotation, camera = np.asarray(cv2.Rodrigues(step[:3])[0] @ rotation, np.float64), camera + step[3:]
    variance = weights @ squared / max(1.0, 2 * weights.sum() - 6)
    covariance = variance * np.linalg.pinv(normal)[3:5, 3:5] * _CORRELATED / independent
    above, axis = -rotation[1], rotation[2]
    altitude = float(camera[2])
    return Pose(
        place=camera[:2],
        covariance=covariance,
        heading=degrees(atan2(above[0], above[1])) % 360,
        width=ground_width(altitude, fov),
        altitude=altitude,
        tilt=degrees(atan2(hypot(axis[0], axis[1]), -axis[2])),
    )


def _camera_slopes(seen: Floats, rotation: Floats, focal: float) -> Floats:
    """Derivatives of pixels [N, 2, 6] by a rotation of the camera about its axes (radians) and by its position."""
    right, down, ahead = seen.T
    none = np.zeros(len(seen))
    near = focal / ahead
    by_seen = np.array([(near, none, -near * right / ahead), (none, near, -near * down / ahead)]).transpose(2, 0, 1)
    turned = np.array([(none, ahead, -down), (-ahead, none, right), (down, -right, none)]).transpose(2, 0, 1)
    return np.concatenate([by_seen @ turned, by_seen @ -rotation], axis=2)


def fault_of(solved: Pose, pixels: Floats, size: tuple[float, float], supposed: float) -> str | None:
    """Why a pose by the matches at `pixels` cannot be, None where it can; `supposed` is the frame's width in metres."""
    if not (np.isfinite(solved.place).all() and np.isfinite(solved.covariance).all()):
        return "they give no finite position"
    if np.prod(np.ptp(pixels, axis=0)) < _LEAST_AREA * size[0] * size[1]:
        return "all are in one spot of the frame"
    if not 1 / _MOST_RESCALED < solved.width / supposed < _MOST_RESCALED:
        return f"they make the frame {solved.width:.0f} m wide, and {supposed:.0f} m are supposed"
    if solved.tilt is not None and solved.tilt > _MOST_TILT:
        return f"they tilt the camera by {solved.tilt:.0f} degrees"
    return None
