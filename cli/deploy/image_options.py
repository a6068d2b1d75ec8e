"""The options that state how images were taken, written once for all commands that localise them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geodtr.export.options import from_given, option
from geodtr.runtime.names import Mismatch, Shape

if TYPE_CHECKING:
    from geodtr.runtime.images.camera_model import CameraModel
    from geodtr.runtime.images.intake import Intake

PANEL = "How images were taken"


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What the group of options holds; `Intake` checks it."""

    fov: float | None = option(
        None,
        "Horizontal field of view of the images; 360 for full panoramas.",
        "DEGREES",
        shown="by GPano, else by shape",
    )
    shape: Shape = option(
        "as-taken", "Crop equirectangular images of the whole sphere to the model's rows.", flag="--from"
    )
    undistort: str | None = option(
        None, "Undistort images by a calibration of OpenCV, ROS (camera_info) or Kalibr (FILE#cam1).", "FILE"
    )
    mismatch: Mismatch = option(
        "refuse", "At an image that the model was not trained on: refuse it, or warn and localise it."
    )


def intake_of(given: Mapping[str, Any]) -> "Intake":
    """What the options state. Raises ConfigError, and what reading the camera's file raises."""
    from geodtr.runtime.images.intake import Intake

    options: ImageOptions = from_given(ImageOptions, given)
    return Intake(options.fov, options.shape, camera_model_of(options.undistort), options.mismatch)


def camera_model_of(file: str | None) -> "CameraModel | None":
    """The calibration in a file. Raises what reading it raises."""
    from geodtr.runtime.images.camera_model import read_camera_model

    return None if file is None else read_camera_model(file)
