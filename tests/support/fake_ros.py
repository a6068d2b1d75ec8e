"""A stand-in for rclpy and ROS's message packages: enough of them for a node, and strict where rclpy is.

Message classes are made of the definitions that rosbags has; like rclpy's they take their fields by name, and refuse
values of another type or range.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
from bags import TYPES

_PACKAGES = {
    "builtin_interfaces": ("Time",),
    "diagnostic_msgs": ("DiagnosticArray", "DiagnosticStatus", "KeyValue"),
    "geometry_msgs": ("Point", "Pose", "PoseWithCovariance", "PoseWithCovarianceStamped", "Quaternion"),
    "sensor_msgs": ("CompressedImage", "Image", "NavSatFix", "NavSatStatus"),
    "std_msgs": ("Header",),
}
_WHOLE = {
    "int8": (-(2**7), 2**7),
    "uint8": (0, 2**8),
    "uint16": (0, 2**16),
    "int32": (-(2**31), 2**31),
    "uint32": (0, 2**32),
}


def _message(kind: str) -> type:
    """A class with the fields of a message, checked as rclpy's generated classes check them."""
    declared = TYPES.fielddefs[kind][1]

    class Message:
        __msgtype__ = kind

        def __init__(self, **values: Any) -> None:
            assert {*values} == {name for name, _ in declared}, kind
            for name, how in declared:
                _check(values[name], how, f"{kind}.{name}")
                setattr(self, name, values[name])

    Message.__name__ = kind.rpartition("/")[2]
    return Message


def _check(value: Any, how: Any, where: str) -> None:
    node, detail = int(how[0]), how[1]
    if node == 1:  # a basic type
        name = detail[0]
        if name == "byte":
            assert isinstance(value, bytes) and len(value) == 1, where
        elif name in _WHOLE:
            low, high = _WHOLE[name]
            assert type(value) is int and low <= value < high, (where, value)
        elif name == "float64":
            assert type(value) is float, where
        elif name == "string":
            assert isinstance(value, str), where
    elif node == 2:
        assert value.__msgtype__ == detail, where
    elif node == 3:  # an array of a length
        (_, (inner, _)), length = detail
        assert isinstance(value, np.ndarray) and value.dtype == inner and value.shape == (length,), where
    else:
        inner, _ = detail
        assert isinstance(value, list), where
        for each in value:
            _check(each, inner, where)


class Publisher:
    def __init__(self, kind: type) -> None:
        self.kind, self.messages = kind, list[Any]()

    def publish(self, message: Any) -> None:
        assert type(message) is self.kind
        self.messages.append(message)


class Node:
    """A node that keeps what it publishes; `given` are the parameters that its user sets."""

    given: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.published = dict[str, Publisher]()
        self.taking = dict[str, tuple[type, Callable[[Any], None]]]()

    def declare_parameter(self, name: str, default: Any) -> Any:
        assert isinstance(default, bool | int | float | str) or (isinstance(default, list) and default), name
        value = self.given.get(name, default)
        assert type(value) is type(default), name
        return SimpleNamespace(value=value)

    def create_publisher(self, kind: type, topic: str, depth: int) -> Publisher:
        assert depth > 0
        self.published[topic] = Publisher(kind)
        return self.published[topic]

    def create_subscription(self, kind: type, topic: str, call: Callable[[Any], None], quality: Any) -> None:
        assert quality.depth == 1
        self.taking[topic] = kind, call

    def destroy_node(self) -> None:
        self.published.clear()


@contextmanager
def rclpy_of(given: dict[str, Any], spin: Callable[[Any], None]) -> Iterator[dict[str, int]]:
    """The modules of ROS for a while; `spin` is what happens while a node runs. Yields how often rclpy was begun and
    ended.
    """
    calls = {"init": 0, "shutdown": 0}

    def count(name: str) -> Callable[..., None]:
        def call(**_: Any) -> None:
            calls[name] += 1

        return call

    modules = dict[str, ModuleType]()

    def module(name: str, **content: Any) -> None:
        modules[name] = ModuleType(name)
        vars(modules[name]).update(content)

    for package, kinds in _PACKAGES.items():
        module(package)
        module(f"{package}.msg", **{kind: _message(f"{package}/msg/{kind}") for kind in kinds})
    Node.given = given
    ended = count("shutdown")
    module("rclpy", init=count("init"), shutdown=ended, try_shutdown=ended, spin=spin)
    module("rclpy.node", Node=Node)
    policy = SimpleNamespace(KEEP_LAST=1, BEST_EFFORT=2)
    module("rclpy.qos", HistoryPolicy=policy, ReliabilityPolicy=policy, QoSProfile=SimpleNamespace)
    with mock.patch.dict(sys.modules, modules):
        yield calls
