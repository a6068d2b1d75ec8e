"""A rig of cameras: how each is turned, and the panorama that their images of one moment make.

Directions alone count: where cameras stand apart, near things are doubled or cut where two images meet. Sources:
Kalibr's wiki, "YAML formats" (T_cn_cnm1); OpenCV's calib3d for the lenses.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.images.camera_model import (
    CameraModel,
    calibrations_of,
    camera_model_of,
    read_calibration,
    read_camera_model,
)
from geodtr.runtime.images.frames import Frame, Frames, decode_frame, open_frames
from geodtr.runtime.spec import Images

Floats = NDArray[np.float64]

MOST_MISSING = 0.2
"""Share of the panorama that no camera may see."""
LEAST_WIDTH = 1024
"""Columns of the panorama: a model's own size is made of it by preprocessing."""
_FEATHER = 0.1
"""Share of an image's shorter side over which it gives way to its neighbour."""
_APART = 0.5
"""Seconds by which the frames of one moment may be apart."""
_NEEDED = (
    "Needed is a camchain of Kalibr (cam0, cam1 ... with T_cn_cnm1), or a list `cameras`, each with its calibration's "
    "file, `camera`, and `yaw` (clockwise from ahead), and where it has them `pitch` (upwards) and `roll` (clockwise), "
    "in degrees."
)


@dataclass(frozen=True, eq=False)
class Rig:
    """Cameras with the rotation [3, 3] of each from the rig's axes (right, down, ahead) to its own; `name` is the file.

    Raises ConfigError for a rig that leaves more than a fifth of the panorama unseen, naming where.
    """

    name: str
    cameras: tuple[CameraModel, ...]
    rotations: tuple[Floats, ...]
    size: tuple[int, int]
    """Width and height of its panorama, whose rows and columns have one pitch, the horizon in the middle."""

    def __post_init__(self) -> None:
        if self.missing > MOST_MISSING:
            raise ConfigError(
                f"{self.name} leaves {self.missing:.0%} of a panorama of {self.size[0]}x{self.size[1]} pixels unseen"
                f"{self.gaps}; at most {MOST_MISSING:.0%} may be. Add cameras, or check their angles."
            )

    @cached_property
    def _seen(self) -> "tuple[_Seen, ...]":
        width, height = self.size
        azimuth = np.radians((np.arange(width) + 0.5) * (360 / width) - 180)[None]
        rise = np.radians((height / 2 - np.arange(height) - 0.5) * (360 / width))[:, None]
        right, ahead = np.cos(rise) * np.sin(azimuth), np.cos(rise) * np.cos(azimuth)
        rays = np.stack([right, np.broadcast_to(-np.sin(rise), right.shape), ahead], axis=-1).reshape(-1, 3)
        return tuple(
            _seen_by(camera, rays @ rotation.T, self.size)
            for camera, rotation in zip(self.cameras, self.rotations, strict=True)
        )

    @cached_property
    def _total(self) -> NDArray[np.float32]:
        return np.asarray(sum(seen.weight for seen in self._seen), np.float32)

    @property
    def missing(self) -> float:
        """The share of the panorama that no camera sees."""
        return float((self._total == 0).mean())

    @property
    def gaps(self) -> str:
        """The directions in which columns are unseen by half or more, in words; empty where there are none."""
        empty = (self._total == 0).mean(axis=0) >= 0.5
        edges = np.flatnonzero(np.diff(np.concatenate([[False], empty, [False]]).astype(np.int8)))
        degrees = edges * (360 / self.size[0]) - 180
        parts = [f"{low:.0f}° to {high:.0f}°" for low, high in zip(degrees[::2], degrees[1::2], strict=True)]
        return f", from {' and '.join(parts)} clockwise from ahead" if parts else ""

    def join(self, images: Sequence[Images], names: Sequence[str]) -> Images:
        """The panorama, uint8 [H, W, 3], of an image, uint8 [h, w, 3], of each camera; ahead is in the middle. What
        none sees has the mean colour. Raises ImageError where an image is not of its calibration's resolution.
        """
        import cv2

        joined = np.zeros((*self._total.shape, 3), np.float32)
        for image, name, camera, seen in zip(images, names, self.cameras, self._seen, strict=True):
            height, width = image.shape[:2]
            if (width, height) != (camera.width, camera.height):
                raise ImageError(
                    f"{name} has {width}x{height} pixels, and {camera.name} is for {camera.width}x{camera.height}. "
                    "Calibrate the camera at the resolution of its images, or name the sources in the rig's order."
                )
            part = cv2.remap(image, seen.x, seen.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            joined += part * seen.weight[..., None]
        unseen = self._total == 0
        joined /= np.where(unseen, 1, self._total)[..., None]
        joined[unseen] = joined[~unseen].mean(axis=0)
        return np.asarray(np.rint(joined), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Where each pixel of the panorama is in a camera's image, float32 [H, W] each, and its weight there, 0 outside."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    weight: NDArray[np.float32]


def _seen_by(camera: CameraModel, rays: Floats, size: tuple[int, int]) -> _Seen:
    import cv2

    fx, fy, cx, cy = camera.matrix
    x, y, z = rays.T
    inside = np.hypot(x, y) <= np.tan(np.radians(_widest(camera))) * z if camera.lens == "pinhole" else None
    if inside is not None:
        matrix, zero = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.zeros(3)
        ahead = np.where(inside[:, None], rays, (0.0, 0.0, 1.0))
        points, _ = cv2.projectPoints(ahead, zero, zero, matrix, np.array(camera.distortion, np.float64))
        u, v = np.asarray(points, np.float64).reshape(-1, 2).T
    else:
        radius, angle = np.hypot(x, y), np.arctan2(np.hypot(x, y), z)
        bent = angle * (1 + sum(k * angle ** (2 * power) for power, k in enumerate(camera.distortion, 1)))
        inside = angle <= np.radians(_widest(camera))
        scale = np.divide(bent, radius, out=np.ones_like(bent), where=radius > 1e-12)
        u, v = fx * scale * x + cx, fy * scale * y + cy
    margin = np.minimum.reduce([u, v, camera.width - 1 - u, camera.height - 1 - v])
    feather = _FEATHER * min(camera.width, camera.height)
    weight = np.where(inside & (margin >= 0), np.clip(margin / feather, 1e-3, 1), 0)
    shape = (size[1], size[0])
    return _Seen(*(np.asarray(part.reshape(shape), np.float32) for part in (u, v, weight)))


def _widest(camera: CameraModel) -> float:
    """Degrees from the axis up to which the lens's polynomial holds: beyond the image's corners it may turn back."""
    import cv2

    fx, fy, cx, cy = camera.matrix
    if camera.lens == "fisheye":
        angle = np.radians(np.arange(0.0, 180.0, 0.25))
        rising = 1 + sum((2 * power + 1) * k * angle ** (2 * power) for power, k in enumerate(camera.distortion, 1))
        turned = np.flatnonzero(rising <= 0)
        return float(np.degrees(angle[turned[0]])) if len(turned) else 179.75
    right, low = camera.width - 1, camera.height - 1
    corners = np.array([[[a, b]] for a in (0, cx, right) for b in (0, cy, low)], np.float64)
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    straight = np.asarray(cv2.undistortPoints(corners, matrix, np.array(camera.distortion, np.float64)), np.float64)
    return min(85.0, math.degrees(math.atan(float(np.hypot(*straight.reshape(-1, 2).T).max()))) + 1)


def read_rig(path: Path, aspect: float, width: int) -> Rig:
    """Read a camchain of Kalibr, whose first camera looks ahead, or a list of cameras with angles; its panorama is
    `aspect` times as wide as high, and at least `width` pixels wide.

    Raises ConfigError naming the file and what it lacks, MissingDependency where OpenCV or PyYAML is not installed.
    """
    values = read_calibration(path)
    several = calibrations_of(values, path)
    if isinstance(values.get("cameras"), list):
        cameras, rotations = _of_angles(values["cameras"], path)
    elif len(several) > 1:
        names = [f"cam{number}" for number in range(len(several))]
        if missing := [name for name in names if name not in several]:
            raise ConfigError(f"{path} holds {', '.join(several)}, and lacks {missing[0]}. {_NEEDED}")
        cameras = [camera_model_of(several[name], Path(f"{path}#{name}")) for name in names]
        rotations = [np.eye(3)]
        for name in names[1:]:
            rotations.append(_rotation(several[name].get("t_cn_cnm1"), f"{path}: {name}") @ rotations[-1])
    else:
        raise ConfigError(f"{path} is no rig of several cameras. {_NEEDED}")
    wide = max(LEAST_WIDTH, width)
    return Rig(str(path), tuple(cameras), tuple(rotations), (wide, max(1, round(wide / aspect))))


def _of_angles(listed: Sequence[Any], path: Path) -> tuple[list[CameraModel], list[Floats]]:
    cameras, rotations = list[CameraModel](), list[Floats]()
    for number, each in enumerate(listed):
        where = f"{path}, camera {number}"
        known = {"camera", "yaw", "pitch", "roll"}
        if (
            not isinstance(each, dict)
            or not {"camera", "yaw"} <= set(each) <= known
            or not isinstance(each["camera"], str)
        ):
            raise ConfigError(f"{where} is {str(each)[:80]}. {_NEEDED}")
        angles = [each.get(name, 0.0) for name in ("yaw", "pitch", "roll")]
        if not all(isinstance(angle, (int, float)) and math.isfinite(angle) for angle in angles):
            raise ConfigError(f"{where} has the angles {str(angles)[:80]}; numbers of degrees are needed.")
        cameras.append(read_camera_model(path.parent / each["camera"]))
        rotations.append(_turned(*(math.radians(angle) for angle in angles)).T)
    if len(cameras) < 2:
        raise ConfigError(f"{path} has {len(cameras)} cameras; a rig has two at least. For one: --undistort")
    return cameras, rotations


def _turned(yaw: float, pitch: float, roll: float) -> Floats:
    """From a camera's axes (right, down, ahead) to the rig's."""
    (a, b), (c, d), (e, f) = ((math.cos(angle), math.sin(angle)) for angle in (yaw, pitch, roll))
    about_down = np.array([[a, 0, b], [0, 1, 0], [-b, 0, a]])
    about_right = np.array([[1, 0, 0], [0, c, -d], [0, d, c]])
    about_ahead = np.array([[e, -f, 0], [f, e, 0], [0, 0, 1]])
    return np.asarray(about_down @ about_right @ about_ahead, np.float64)


def _rotation(value: Any, where: str) -> Floats:
    """Of a transform [4, 4]. Raises ConfigError where it is none."""
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ConfigError(f"{where} has T_cn_cnm1 {str(value)[:60]}; a transform of 4 x 4 numbers is needed. {_NEEDED}")
    rotation = matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise ConfigError(f"{where} has a T_cn_cnm1 that is no rotation and translation. Calibrate again.")
    return np.asarray(rotation, np.float64)


def open_rig_frames(places: Sequence[str], rig: Rig, *, every: int = 1, limit: int | None = None) -> Frames:
    """The panoramas of a rig, whose cameras' images are at `places`: a folder or a video for each. Otherwise as
    `open_frames`.

    Raises ConfigError where the places are not of the rig's cameras, of one kind, and of as many images.
    """
    if len(places) != len(rig.cameras):
        raise ConfigError(
            f"{rig.name} has {len(rig.cameras)} cameras, and {len(places)} sources are given. Name a folder or a video "
            "for each, in the order of the file."
        )
    sources = [open_frames([place], every=every, limit=limit) for place in places]
    kinds = {source.kind for source in sources}
    if len(kinds) > 1 or "camera" in kinds:
        raise ConfigError("The sources of a rig are either folders of images or videos, for all cameras alike.")
    counts = [source.count for source in sources]
    if len(set(counts)) > 1:
        each = ", ".join(map(str, counts))
        raise ConfigError(f"The sources of {rig.name} hold {each} images; a moment is one of each.")
    return Frames(joined_frames([source.frames for source in sources], rig), counts[0], sources[0].kind, endless=False)


def joined_frames(sources: Sequence[Iterable[Frame]], rig: Rig) -> Iterator[Frame]:
    """Frame i of every source, in the order of the rig's cameras, as one panorama with the first one's name and time.

    A moment of which a camera's image cannot be used yields an ImageError. Raises DataError where the frames of one
    moment are more than half a second apart, or one source ends before the others.
    """
    for number, moment in enumerate(zip_longest(*sources)):
        first = next(frame for frame in moment if frame is not None)
        if None in moment:
            name = next(camera.name for camera, frame in zip(rig.cameras, moment, strict=True) if frame is None)
            raise DataError(f"The source of {name} ends before moment {number}, and others go on: frames are missing.")
        times = [frame.time for frame in moment if frame.time is not None]
        if times and max(times) - min(times) > _APART:
            raise DataError(
                f"{first.name}: the frames of this moment are {max(times) - min(times):.2f} s apart. Give sources that "
                "began together and have one rate."
            )
        try:
            images = [np.asarray(decode_frame(frame).image) for frame in moment]
            panorama = rig.join(images, [frame.called for frame in moment])
        except ImageError as error:
            yield replace(first, image=error)
        else:
            yield replace(first, image=panorama)
