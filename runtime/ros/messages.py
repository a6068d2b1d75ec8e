"""The ROS messages that the node publishes, as plain values, with ROS's own names of types and fields.

`as_ros` makes messages of them, of rclpy's classes or of any others that take their fields by name. Sources: the
definitions of sensor_msgs, geometry_msgs and diagnostic_msgs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OK, WARN, ERROR = 0, 1, 2
"""Levels of DiagnosticStatus."""
UNKNOWN, APPROXIMATED = 0, 1
"""Types of a NavSatFix's covariance."""
FIX = 0
"""A NavSatStatus."""


@dataclass(frozen=True, slots=True)
class Time:
    """Of the sender's clock."""

    sec: int
    nanosec: int


@dataclass(frozen=True, slots=True)
class Header:
    """When a message's content held, and in which frame."""

    stamp: Time
    frame_id: str


@dataclass(frozen=True, slots=True)
class NavSatStatus:
    """`service` 0: of no satellites."""

    status: int = FIX
    service: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class NavSatFix:
    """Degrees and metres, `altitude` NaN where it is unknown; the covariance [9] in metres squared: east, north, up."""

    header: Header
    status: NavSatStatus
    latitude: float
    longitude: float
    altitude: float
    position_covariance: NDArray[np.float64]
    position_covariance_type: int


@dataclass(frozen=True, slots=True)
class Point:
    """Metres."""

    x: float
    y: float
    z: float


@dataclass(frozen=True, slots=True)
class Quaternion:
    """A rotation, of length 1."""

    x: float
    y: float
    z: float
    w: float


@dataclass(frozen=True, slots=True)
class Pose:
    """Where and how something is."""

    position: Point
    orientation: Quaternion


@dataclass(frozen=True, slots=True, eq=False)
class PoseWithCovariance:
    """The covariance [36] of x, y, z and the rotations about them."""

    pose: Pose
    covariance: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PoseWithCovarianceStamped:
    """A pose at a moment."""

    header: Header
    pose: PoseWithCovariance


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A figure of a diagnosis."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class DiagnosticStatus:
    """How a part is; `level` OK, WARN or ERROR."""

    level: int
    name: str
    message: str
    hardware_id: str
    values: list[KeyValue]


@dataclass(frozen=True, slots=True)
class DiagnosticArray:
    """How all parts are."""

    header: Header
    status: list[DiagnosticStatus]


def as_ros(value: Any, types: Mapping[str, Callable[..., Any]]) -> Any:
    """The message of `types`, by the name of its type, with all that is in it."""
    if is_dataclass(value):
        inner = {each.name: as_ros(getattr(value, each.name), types) for each in fields(value)}
        return types[type(value).__name__](**inner)
    return [as_ros(each, types) for each in value] if isinstance(value, list) else value
