"""Files of rigs, and what their cameras see of a coloured sphere. Axes are right, down and ahead."""

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.images.rig import Rig
from geodtr.runtime.spec import Images

Floats = NDArray[np.float64]
SIDE, FOCAL = 240, 100.0
"""Pixels of each camera's square images: 100 degrees."""
YAWS = (0.0, 90.0, 180.0, 270.0)
STRAIGHT = (0.0, 0.0, 0.0, 0.0)


def turn(yaw: float) -> Floats:
    """From a camera's axes to the rig's."""
    c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def angles_of(rays: Floats) -> tuple[Floats, Floats]:
    """Azimuth and rise of directions [..., 3] in radians."""
    azimuth = np.arctan2(rays[..., 0], rays[..., 2])
    return azimuth, np.arctan2(-rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))


def sphere(rays: Floats) -> Images:
    """What is seen in each direction: smooth, and another colour everywhere."""
    azimuth, rise = angles_of(rays)
    levels = np.stack([np.cos(azimuth), np.sin(azimuth), np.sin(3 * azimuth) * 0.5 + rise], axis=-1)
    return np.asarray(np.clip(127.5 + 100 * levels, 0, 255), np.uint8)


def rays_of(distortion: tuple[float, ...] = STRAIGHT, *, fisheye: bool = False) -> Floats:
    """The direction of each pixel in its camera's axes, by OpenCV, [SIDE, SIDE, 3]."""
    v, u = np.mgrid[0:SIDE, 0:SIDE]
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    matrix = np.array([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]])
    undo = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    straight = np.asarray(undo(pixels, matrix, np.array(distortion)), np.float64).reshape(SIDE, SIDE, 2)
    return np.concatenate([straight, np.ones((SIDE, SIDE, 1))], axis=-1)


def shots(
    yaws: tuple[float, ...] = YAWS, distortion: tuple[float, ...] = STRAIGHT, *, fisheye: bool = False
) -> list[Images]:
    """The image of each camera."""
    rays = rays_of(distortion, fisheye=fisheye)
    return [sphere(rays @ turn(yaw).T) for yaw in yaws]


def expected(rig: Rig) -> Images:
    """The panorama of the sphere."""
    width, height = rig.size
    azimuth = np.radians((np.arange(width) + 0.5) * 360 / width - 180)[None]
    rise = np.radians((height / 2 - np.arange(height) - 0.5) * 360 / width)[:, None]
    down = np.broadcast_to(-np.sin(rise), (height, width))
    return sphere(np.stack([np.cos(rise) * np.sin(azimuth), down, np.cos(rise) * np.cos(azimuth)], axis=-1))


def kalibr(
    path: Path, yaws: tuple[float, ...] = YAWS, model: str = "radtan", distortion: tuple[float, ...] = STRAIGHT
) -> Path:
    """A camchain."""
    text = ""
    for number, yaw in enumerate(yaws):
        text += (
            f"cam{number}:\n  camera_model: pinhole\n  distortion_model: {model}\n"
            f"  distortion_coeffs: {list(distortion)}\n  intrinsics: [{FOCAL}, {FOCAL}, {SIDE / 2}, {SIDE / 2}]\n"
            f"  resolution: [{SIDE}, {SIDE}]\n"
        )
        if number:
            transform = np.eye(4)
            transform[:3, :3] = turn(yaw).T @ turn(yaws[number - 1])
            text += f"  T_cn_cnm1: {transform.tolist()}\n"
    path.write_text(text)
    return path


def angles(path: Path, yaws: tuple[float, ...] = YAWS, more: str = "") -> Path:
    """Cameras with angles, all of one calibration."""
    kalibr(path.parent / "one.yaml", (0.0,))
    path.write_text("cameras:\n" + "".join(f"- {{camera: one.yaml, yaw: {yaw}{more}}}\n" for yaw in yaws))
    return path
