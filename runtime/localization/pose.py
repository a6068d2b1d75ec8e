"""The pose of a frame that looks straight down, by points that it shares with the flat ground.

Points of the frame are in pixels, places of the ground in metres east and north of an anchor, both [N, 2].
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, cos, degrees, hypot, radians, sin, tan
from typing import Any

import numpy as np

from geodtr.runtime.localization.fix import Floats

_LEAST_AREA = 0.02
"""Share of the frame that the inliers' rectangle covers at least: all in one spot fix no scale."""
_MOST_TILT = 30.0
_MOST_RESCALED = 1.6
"""Factor by which the ground size may differ from the supposed one."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Metres east and north of the anchor with their covariance, and the rest of the pose; angles in degrees."""

    place: Floats
    covariance: Floats
    heading: float
    width: float
    altitude: float | None
    tilt: float | None


def flat_pose(pixels: Floats, places: Floats, homography: Floats, size: tuple[int, int]) -> Pose:
    """What the frame's middle shows, by the homography alone."""
    middle = np.array(size) / 2

    def mapped(entries: Floats, points: Floats) -> Floats:
        lifted = np.column_stack([points, np.ones(len(points))]) @ np.append(entries, 1.0).reshape(3, 3).T
        return np.asarray(lifted[:, :2] / lifted[:, 2:], np.float64)

    entries = (homography / homography[2, 2]).ravel()[:8]
    covariance = _covariance(
        entries, lambda each: (mapped(each, pixels) - places).ravel(), lambda each: mapped(each, middle[None])[0]
    )
    here, above, right = mapped(entries, middle + np.array([(0, 0), (0, -1), (1, 0)]))
    east, north = above - here
    width = float(np.hypot(*(right - here))) * size[0]
    return Pose(here, covariance, degrees(atan2(east, north)) % 360, width, None, None)


def camera_pose(pixels: Floats, places: Floats, homography: Floats, size: tuple[int, int], fov: float) -> Pose:
    """Where the camera is, from points on the flat ground."""
    import cv2

    flat = flat_pose(pixels, places, homography, size)
    focal = size[0] / (2 * tan(radians(fov) / 2))
    lens: Any = np.array([(focal, 0, size[0] / 2), (0, focal, size[1] / 2), (0, 0, 1)])
    ground = np.column_stack([places, np.zeros(len(places))])
    angle = radians(flat.heading)
    # World (east, north, up) to camera (right, down, ahead), as if it looked straight down.
    down = np.array([(cos(angle), -sin(angle), 0), (-sin(angle), -cos(angle), 0), (0, 0, -1)])
    height = flat.width / (2 * tan(radians(fov) / 2))
    turn, _ = cv2.Rodrigues(down)
    shift = -down @ np.append(flat.place, height)
    _, turn, shift = cv2.solvePnP(
        ground, pixels, lens, None, turn, shift.reshape(3, 1), useExtrinsicGuess=True, flags=cv2.SOLVEPNP_ITERATIVE
    )
    pose = np.concatenate([turn.ravel(), shift.ravel()])

    def missed(each: Floats) -> Floats:
        shown, _ = cv2.projectPoints(ground, each[:3], each[3:], lens, None)
        return np.asarray(shown.reshape(-1, 2) - pixels, np.float64).ravel()

    def camera(each: Floats) -> Floats:
        return np.asarray(-cv2.Rodrigues(each[:3])[0].T @ each[3:], np.float64)

    covariance = _covariance(pose, missed, lambda each: camera(each)[:2])
    rotation, place = cv2.Rodrigues(pose[:3])[0], camera(pose)
    above, axis = -rotation[1], rotation[2]
    altitude = float(place[2])
    return Pose(
        place=place[:2],
        covariance=covariance,
        heading=degrees(atan2(above[0], above[1])) % 360,
        width=2 * altitude * tan(radians(fov) / 2),
        altitude=altitude,
        tilt=degrees(atan2(hypot(axis[0], axis[1]), -axis[2])),
    )


def _covariance(
    parameters: Floats, residuals: Callable[[Floats], Floats], result: Callable[[Floats], Floats]
) -> Floats:
    """The covariance [2, 2] of `result`, by how far the residuals of a least squares solution scatter.

    S = s^2 D (J^T J)^-1 D^T, with the derivatives J of the residuals and D of the result, taken numerically.
    """
    left = residuals(parameters)
    steps = 1e-6 * np.maximum(np.abs(parameters), 1e-3)
    shifted = parameters + np.diag(steps)
    slopes = np.stack([(residuals(each) - left) / step for each, step in zip(shifted, steps, strict=True)], axis=1)
    moves = np.stack(
        [(result(each) - result(parameters)) / step for each, step in zip(shifted, steps, strict=True)], axis=1
    )
    variance = left @ left / max(1, len(left) - len(parameters))
    return np.asarray(variance * moves @ np.linalg.pinv(slopes.T @ slopes) @ moves.T, np.float64)


def fault_of(solved: Pose, pixels: Floats, size: tuple[int, int], supposed: float) -> str | None:
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
