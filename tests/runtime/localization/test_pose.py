"""Poses by points on the ground: exact without noise, and as far off as the covariance states with noise."""

import math

import numpy as np
import pytest

from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.nadir.pose import _CORRELATED, _CORRELATED_FLAT, Pose, camera_pose, flat_pose
from geodtr.training.world.views.nadir import Camera

CAMERA = Camera(90.0, 130.0, fov=70.0, tilt=6.0, towards=40.0, height=300, width=400)
SIZE = (400.0, 300.0)
PLACE = np.array([12.0, -7.0])


def shared(noise: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Pixels and places, and the homography between them."""
    import cv2

    random = np.random.default_rng(seed)
    pixels = random.uniform((0, 0), SIZE, (80, 2))
    places = CAMERA.ground(*pixels.T) + PLACE
    homography, _ = cv2.findHomography(pixels, places)
    return pixels + random.normal(0, noise, pixels.shape), places, np.asarray(homography, np.float64)


def solved(noise: float, seed: int) -> tuple[Pose, Pose]:
    pixels, places, homography = shared(noise, seed)
    flat = flat_pose(pixels, places, homography, SIZE, 1.0)
    return flat, camera_pose(pixels, places, flat, SIZE, CAMERA.fov, 5.0, 1.0)


def test_a_pose_is_exact_without_noise() -> None:
    flat, camera = solved(0.0, 0)
    middle = CAMERA.ground(np.array([200.0]), np.array([150.0]))[0] + PLACE
    assert np.allclose(flat.place, middle, atol=1e-5)
    assert np.allclose(camera.place, PLACE, atol=1e-5)
    assert camera.altitude == pytest.approx(90)
    assert camera.tilt == pytest.approx(6)
    assert camera.width == pytest.approx(2 * 90 * math.tan(math.radians(35)))
    assert abs(camera.heading - 130) < 3  # where the upper edge points, which a tilt aside turns


def test_matches_that_are_wrong_hardly_move_the_camera() -> None:
    pixels, places, homography = shared(0.0, 1)
    flat = flat_pose(pixels, places, homography, SIZE, 1.0)
    places = places.copy()
    places[:20] += np.random.default_rng(2).uniform(-25, 25, (20, 2))
    camera = camera_pose(pixels, places, flat, SIZE, CAMERA.fov, 1.0, 1.0)
    assert np.hypot(*(camera.place - PLACE)) < 0.1


def test_errors_are_as_large_as_the_covariance_states() -> None:
    """Of independent errors: without the factor for what matches have in common."""
    for which, factor in enumerate((_CORRELATED_FLAT, _CORRELATED)):
        normal = []
        for seed in range(60):
            pose = solved(1.5, seed)[which]
            truth = PLACE if which else CAMERA.ground(np.array([200.0]), np.array([150.0]))[0] + PLACE
            off = pose.place - truth
            normal.append(off @ np.linalg.solve(pose.covariance / factor, off))
        assert 0.5 < np.mean(normal) / 2 < 1.6


def test_matches_that_depend_on_each_other_count_less() -> None:
    pixels, places, homography = shared(1.0, 3)
    one, half = (flat_pose(pixels, places, homography, SIZE, share).covariance for share in (1.0, 0.5))
    assert np.allclose(half, 2 * one)
