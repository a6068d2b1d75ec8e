"""ROS 2 bags for tests, written by rosbags: a drive over a TinyWorld with a camera, its calibration and a receiver."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_typestore
from tiny_world import TinyWorld

TYPES = get_typestore(Stores.ROS2_HUMBLE)
CAMERA, INFO, GNSS = "/camera/image_raw", "/camera/camera_info", "/gnss/fix"
BEGAN = 1_700_000_000
"""Seconds since 1970 of the first frame."""


def message(kind: str, **fields: Any) -> Any:
    """A message of `sensor_msgs/msg/` by its name."""
    return TYPES.types[f"sensor_msgs/msg/{kind}"](**fields)


def header(seconds: float, frame: str = "camera") -> Any:
    whole = int(seconds)
    part = round((seconds - whole) * 1e9)
    stamp = TYPES.types["builtin_interfaces/msg/Time"](sec=whole, nanosec=part)
    return TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def image(pixels: np.ndarray, seconds: float, encoding: str = "rgb8", padding: int = 0) -> Any:
    """sensor_msgs/Image of what `pixels`, [h, w, c], hold in this encoding; rows end in `padding` bytes."""
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
    return message(
        "Image",
        header=header(seconds),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=np.ascontiguousarray(rows.ravel()),
    )


def compressed(pixels: np.ndarray, seconds: float, how: str = "png") -> Any:
    from io import BytesIO

    stream = BytesIO()
    Image.fromarray(pixels).save(stream, how, quality=95)
    data = np.frombuffer(stream.getvalue(), np.uint8)
    return message("CompressedImage", header=header(seconds), format=f"rgb8; {how} compressed bgr8", data=data)


def nav_sat_fix(lat: float, lon: float, seconds: float, status: int = 0) -> Any:
    return message(
        "NavSatFix",
        header=header(seconds, "gps"),
        status=message("NavSatStatus", status=status, service=1),
        latitude=lat,
        longitude=lon,
        altitude=30.0,
        position_covariance=np.zeros(9),
        position_covariance_type=0,
    )


def camera_info(width: int, height: int, focal: float, k1: float = 0.0) -> Any:
    k = np.array([focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1], np.float64)
    roi = message("RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return message(
        "CameraInfo",
        header=header(BEGAN),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.array([k1, 0, 0, 0, 0]),
        k=k,
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


@dataclass(frozen=True)
class Cut:
    """A message of which only the first bytes were stored."""

    whole: Any
    size: int


def cdr(each: Any) -> bytes:
    """A message as it is stored."""
    return bytes(TYPES.serialize_cdr(each, each.__msgtype__))


def write_bag(
    path: Path,
    messages: Sequence[tuple[str, Any]],
    storage: Literal["mcap", "sqlite3"] = "mcap",
    *,
    zipped: Literal["message", "storage"] | None = None,
) -> Path:
    """A bag of (topic, message), recorded a second behind their stamps."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with_writer = Writer(path, version=9, storage_plugin=plugin)
    if zipped is not None:
        mode = CompressionMode.MESSAGE if zipped == "message" else CompressionMode.STORAGE
        with_writer.set_compression(mode, CompressionFormat.ZSTD)
    with with_writer as writer:
        connections = {}
        for topic, stored in messages:
            each = stored.whole if isinstance(stored, Cut) else stored
            size = stored.size if isinstance(stored, Cut) else None
            kind = each.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            stamp = each.header.stamp
            recorded = (stamp.sec + 1) * 10**9 + stamp.nanosec
            writer.write(connections[topic], recorded, cdr(each)[:size])
    return path


def write_chunks(path: Path, images: Sequence[tuple[float, bytes]], size: int, *, index: bool = True) -> Path:
    """An MCAP file of images, (seconds, message), as mcap's own writer writes it, with checksums: a chunk ends with the
    message that makes it larger than `size` bytes.
    """
    indexes = IndexType.ALL if index else IndexType.NONE
    with path.open("wb") as stream:
        writer = McapWriter(stream, size, CompressionType.NONE, indexes)
        writer.start()
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel(CAMERA, "cdr", schema)
        for seconds, data in images:
            writer.add_message(channel, int(seconds * 10**9), data, int(seconds * 10**9))
        writer.finish()  # type: ignore[no-untyped-call]
    return path


def drive_of(tiny: TinyWorld, rows: Sequence[int]) -> list[tuple[str, Any]]:
    """A frame a second at each of these tiles, and the receiver's position ten times a second, 3 m north of it."""
    messages = list[tuple[str, Any]]()
    for second, row in enumerate(rows):
        messages.append((CAMERA, image(tiny.panorama(row, seed=row), BEGAN + second)))
        position = float(tiny.lat[row]) + 3 / 111_000, float(tiny.lon[row])
        messages += [(GNSS, nav_sat_fix(*position, BEGAN + second + part / 10)) for part in range(-2, 3)]
    return messages
