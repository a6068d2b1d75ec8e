"""A camera's calibration, from the file of the program that measured it, and images without its distortion.

Reads OpenCV's YAML and XML, Kalibr's YAML, and ROS's camera_info (its file, or the message as it is printed). Sources:
OpenCV's calib3d and its tutorial on camera calibration; Kalibr's wiki, "YAML formats"; ROS's sensor_msgs/CameraInfo.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import atan, degrees, isfinite, nan
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.files.documents import MAX_XML_BYTES, decode_xml, decode_yaml, read_document
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.images.video import check_opencv

Lens = Literal["pinhole", "fisheye"]

_LENSES: Mapping[str, Lens] = {
    "plumb_bob": "pinhole",
    "radtan": "pinhole",
    "rational_polynomial": "pinhole",
    "none": "pinhole",
    "equidistant": "fisheye",
    "fisheye": "fisheye",
    "kannala_brandt": "fisheye",
}
_COUNTS: Mapping[Lens, tuple[int, ...]] = {"pinhole": (0, 4, 5, 8, 12, 14), "fisheye": (4,)}
_MAX_SIDE = 65_535
_NARROWEST, _WIDEST = 0.5, 170.0
"""Degrees: no camera's lens sees less, and a perspective image of more is all border."""


@dataclass(frozen=True, slots=True)
class CameraModel:
    """A calibrated camera. `matrix` is fx, fy, cx, cy in pixels of images of `width` x `height`; `distortion` holds
    OpenCV's coefficients: of its fisheye module for "fisheye", otherwise k1, k2, p1, p2, and more.

    Raises ConfigError, naming the file `name`, for values that no camera has.
    """

    name: str
    width: int
    height: int
    matrix: tuple[float, float, float, float]
    distortion: tuple[float, ...]
    lens: Lens = "pinhole"

    def __post_init__(self) -> None:
        fx, fy, cx, cy = self.matrix
        fault = None
        if not (1 <= self.width <= _MAX_SIDE and 1 <= self.height <= _MAX_SIDE):
            fault = f"a resolution of {self.width}x{self.height}; sides of 1 to {_MAX_SIDE} pixels are allowed"
        elif not all(map(isfinite, (*self.matrix, *self.distortion))):
            fault = "values that are no finite numbers"
        elif not (fx > 0 and fy > 0):
            fault = f"focal lengths of {fx:g} and {fy:g} pixels; both must be above 0, in pixels"
        elif not (0 < cx < self.width and 0 < cy < self.height):
            fault = f"its principal point at {cx:g}, {cy:g}, outside of {self.width}x{self.height} pixels"
        elif len(self.distortion) not in _COUNTS[self.lens]:
            allowed = ", ".join(map(str, _COUNTS[self.lens]))
            fault = f"{len(self.distortion)} distortion coefficients; a {self.lens} camera has {allowed}"
        if fault is not None:
            raise ConfigError(f"{self.name} has {fault}. Calibrate the camera again, or correct the file.")

    @property
    def field_of_view(self) -> float:
        """Horizontal, in degrees, of the undistorted image."""
        return degrees(2 * atan(self.width / (2 * _maps(self).focal_length)))


def read_camera_model(file: Path | str) -> CameraModel:
    """Read `file`; `file#cam1` names one of several cameras of Kalibr.

    Raises ConfigError naming the file and what it lacks, MissingDependency where OpenCV or PyYAML is not installed.
    """
    text, _, camera = str(file).partition("#")
    path = Path(text)
    return camera_model_of(_chosen(read_calibration(path), camera, path), path)


def read_calibration(path: Path) -> dict[str, Any]:
    """The values of a calibration by name, in lower case. Raises as read_camera_model does."""
    check_opencv()
    try:
        content = read_document(path, MAX_XML_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. Name the camera's calibration file.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        if content.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
            values: Any = _of_xml(decode_xml(content))
        else:
            # OpenCV's directive is not YAML's own.
            plain = re.sub(r"\A(\ufeff?)%YAML:1\.0", r"\1%YAML 1.1", content.decode())
            arrays = ("tag:yaml.org,2002:opencv-matrix", "tag:yaml.org,2002:opencv-nd-matrix")
            values = decode_yaml(plain, dict.fromkeys(arrays, dict))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is neither YAML nor OpenCV's XML ({error}).") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} holds no calibration. {_NEEDED}")
    return {key.lower(): value for key, value in values.items()}


def calibrations_of(values: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """By name, the cameras of a file of Kalibr, their values by name in lower case; empty for other files. Raises
    ConfigError where names are no text.
    """
    several = {key: value for key, value in values.items() if re.fullmatch(r"cam\d+", key) and isinstance(value, dict)}
    for name, camera in several.items():
        if not all(isinstance(key, str) for key in camera):
            raise ConfigError(f"{path}: {name} has names that are no text. {_NEEDED}")
    return {name: {key.lower(): value for key, value in camera.items()} for name, camera in several.items()}


def undistort(decoded: Decoded, camera: CameraModel, name: str) -> Decoded:
    """The perspective image of the same size that a camera without distortion takes, with square pixels and the optical
    axis in the middle, cut to where it has pixels.

    Raises ImageError, naming the image `name`, when it is not of the calibration's resolution.
    """
    if decoded.image.size != (camera.width, camera.height):
        width, height = decoded.image.size
        raise ImageError(
            f"{name} has {width}x{height} pixels, and {camera.name} is for {camera.width}x{camera.height}. Calibrate "
            "the camera at the resolution of its images."
        )
    import cv2

    maps = _maps(camera)
    pixels = cv2.remap(np.asarray(decoded.image), maps.x, maps.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Decoded(Image.fromarray(np.asarray(pixels, np.uint8)), None, decoded.xmp)


def describe_camera(camera: CameraModel) -> str:
    """All that decides what `undistort` gives, as text: equal for equal cameras, whichever file they are from."""
    numbers = ", ".join(f"{value:.9g}" for value in (*camera.matrix, *camera.distortion))
    return f"{camera.lens} {camera.width}x{camera.height}: {numbers}"


_NEEDED = (
    "Needed are image_width, image_height, camera_matrix and distortion_coefficients (OpenCV, ROS), width, height, K "
    "and D (ROS), or resolution, intrinsics, distortion_model and distortion_coeffs (Kalibr)."
)


@dataclass(frozen=True, slots=True, eq=False)
class _Maps:
    """Where each pixel of the undistorted image is in the original, float32 [H, W] each, and its focal length."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    focal_length: float


@lru_cache(maxsize=8)
def _maps(camera: CameraModel) -> _Maps:
    import cv2

    fx, fy, cx, cy = camera.matrix
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    distortion, size, straight = np.array(camera.distortion), (camera.width, camera.height), np.eye(3)
    fisheye = camera.lens == "fisheye"
    try:
        if fisheye:
            inner = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
                matrix, distortion, size, straight, balance=0.0
            )
        else:
            inner, _ = cv2.getOptimalNewCameraMatrix(matrix, distortion, size, 0)
        focal = _focal_length(np.asarray(inner, np.float64), size)
        new = np.array([[focal, 0, (camera.width - 1) / 2], [0, focal, (camera.height - 1) / 2], [0, 0, 1]])
        rectified = matrix, distortion, straight, new, size, cv2.CV_32FC1
        x, y = cv2.fisheye.initUndistortRectifyMap(*rectified) if fisheye else cv2.initUndistortRectifyMap(*rectified)
    except cv2.error as error:
        raise ConfigError(
            f"{camera.name} cannot be used by OpenCV ({error.err}). Calibrate the camera again."
        ) from None
    usable = np.isfinite(x).all() and np.isfinite(y).all() and isfinite(focal) and focal > 0
    if not usable or not _NARROWEST <= degrees(2 * atan(camera.width / (2 * focal))) <= _WIDEST:
        raise ConfigError(
            f"{camera.name} describes a lens of which no perspective image of {_NARROWEST:g}° to {_WIDEST:g}° can be "
            "made. Check its focal length, in pixels, its distortion coefficients and their model."
        )
    return _Maps(np.asarray(x, np.float32), np.asarray(y, np.float32), focal)


def _focal_length(inner: NDArray[np.float64], size: tuple[int, int]) -> float:
    """The focal length, in pixels, of an image with square pixels and the optical axis in its middle that sees all of
    what fits into an image of the matrix `inner`; NaN where the axis is outside of that.
    """
    axis, sides = inner[:2, 2], np.array(size)
    half = np.minimum(axis + 0.5, sides - 0.5 - axis)
    return float(np.max(np.diag(inner)[:2] * sides / (2 * half))) if (half > 0).all() else nan


def _chosen(values: Mapping[str, Any], camera: str, path: Path) -> Mapping[str, Any]:
    """The mapping of one camera, where the file holds several."""
    several = calibrations_of(values, path)
    if not several:
        if camera:
            raise ConfigError(f"{path} holds one camera. Leave #{camera} out.")
        return values
    if camera in several or (len(several) == 1 and not camera):
        return several[camera or next(iter(several))]
    raise ConfigError(f"{path} holds {', '.join(several)}. Name one of them: {path}#{next(iter(several))}")


def camera_model_of(values: Mapping[str, Any], path: Path) -> CameraModel:
    """The camera that a calibration's values describe; `path` names their origin. Raises ConfigError."""
    if "intrinsics" in values:
        if values.get("camera_model", "pinhole") != "pinhole":
            raise ConfigError(f"{path} has camera_model {values['camera_model']!r}; allowed: pinhole.")
        size, intrinsics = _numbers(values, "resolution", path, 2), _numbers(values, "intrinsics", path, 4)
        distortion = _numbers(values, "distortion_coeffs", path)
    else:
        size = [*_numbers(values, _first(values, "image_width", "width"), path, 1)]
        size += _numbers(values, _first(values, "image_height", "height"), path, 1)
        matrix = _numbers(values, _first(values, "camera_matrix", "k"), path, 9)
        intrinsics = [matrix[0], matrix[4], matrix[2], matrix[5]]
        distortion = _numbers(values, _first(values, "distortion_coefficients", "dist_coeffs", "d"), path)
    named = str(values.get("distortion_model", "fisheye" if values.get("fisheye_model") in (1, "1") else "plumb_bob"))
    lens = _LENSES.get(named.lower())
    if lens is None:
        raise ConfigError(f"{path} has distortion_model {named!r}; allowed: {', '.join(_LENSES)}.")
    width, height = size
    if not (width.is_integer() and height.is_integer()):
        raise ConfigError(f"{path} has a resolution of {width:g}x{height:g}; whole numbers of pixels are needed.")
    fx, fy, cx, cy = intrinsics
    return CameraModel(str(path), int(width), int(height), (fx, fy, cx, cy), tuple(distortion), lens)


def _first(values: Mapping[str, Any], *names: str) -> str:
    return next((name for name in names if name in values), names[0])


def _numbers(values: Mapping[str, Any], name: str, path: Path, count: int | None = None) -> list[float]:
    """The numbers of a list, a matrix or a single value."""
    if name not in values:
        raise ConfigError(f"{path} lacks {name}. {_NEEDED}")
    value = values[name]
    if isinstance(value, dict):
        value = value.get("data")
    listed: Sequence[Any] = value if isinstance(value, list) else [value]
    if any(isinstance(each, list) for each in listed):
        listed = [inner for each in listed for inner in (each if isinstance(each, list) else [each])]
    try:
        numbers = [float(each) for each in listed if not isinstance(each, bool)]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != len(listed) or (count is not None and len(numbers) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise ConfigError(f"{path}: {name} is {str(value)[:60]}; needed: {wanted}. {_NEEDED}")
    return numbers


def _of_xml(root: Element) -> dict[str, Any]:
    """OpenCV's storage as YAML has it: a matrix is a mapping with `data`."""
    values = dict[str, Any]()
    for child in root:
        data = child.find("data")
        values[child.tag] = (child.text or "").strip() if data is None else {"data": (data.text or "").split()}
    return values
