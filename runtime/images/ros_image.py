"""Pixels of ROS's image messages, sensor_msgs/Image and sensor_msgs/CompressedImage.

Knows their fields by name: a message of rclpy, of rosbags, or any object that has them. Source: the definitions of
sensor_msgs, and sensor_msgs/image_encodings.hpp for the names of encodings.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.decode import MAX_PIXELS, decode_bytes
from geodtr.runtime.spec import Images

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

_ORDERS: Mapping[str, tuple[int, ...]] = {
    "rgb8": (0, 1, 2),
    "bgr8": (2, 1, 0),
    "rgba8": (0, 1, 2),
    "bgra8": (2, 1, 0),
    "mono8": (0, 0, 0),
}
"""Of each encoding, the channel that is red, green and blue."""
_CHANNELS: Mapping[str, int] = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that say what its pixels are."""

    height: int
    width: int
    encoding: str
    step: int
    data: Any


class CompressedMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that hold the file."""

    format: str
    data: Any


def pixels_of(message: ImageMessage, name: str) -> Images:
    """uint8 RGB [height, width, 3] of sensor_msgs/Image. Raises ImageError, naming `name`, for another encoding, or
    sizes that do not fit the data.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    if encoding not in _ORDERS:
        raise ImageError(f"{name} has encoding {encoding[:40]!r}; allowed: {', '.join(_ORDERS)}. {_remedy(encoding)}")
    channels = _CHANNELS[encoding]
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ImageError(f"{name} has {width}x{height} pixels; 1 to {MAX_PIXELS:,} pixels are allowed.")
    rows = np.frombuffer(memoryview(message.data), np.uint8)
    if step < width * channels or len(rows) < height * step:
        raise ImageError(
            f"{name} holds {len(rows):,} bytes in rows of {step}: too few for {width}x{height} pixels in {encoding}. "
            "It is damaged."
        )
    pixels = rows[: height * step].reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    return np.ascontiguousarray(pixels[:, :, _ORDERS[encoding]])


def decompressed(message: CompressedMessage, name: str) -> Images:
    """The same of sensor_msgs/CompressedImage, whose data is an image file. Raises ImageError as `decode_bytes` does,
    and for depth images of image_transport.
    """
    if "compressedDepth" in message.format:
        raise ImageError(f"{name} has format {message.format[:60]!r}, a depth image. Name a topic with colour images.")
    return decode_bytes(bytes(message.data), name).pixels


def _remedy(encoding: str) -> str:
    if encoding.startswith("bayer"):
        return "Record the topic that image_proc makes of the raw pattern, /image_color."
    return "Convert it with image_proc or cv_bridge, or record the camera's compressed topic."
