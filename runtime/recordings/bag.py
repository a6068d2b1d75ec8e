"""A recording of a drive or a flight as a source of frames: a ROS 2 bag (a folder, .db3 or .mcap), or an MCAP file.

Frames, the camera's calibration, and positions of a satellite receiver, each from a topic of its own; times come
from the messages' headers, in seconds since 1970 where the recorder's clock was right. The package `rosbags` decodes
messages, by its own definitions and not by those that a recording brings. Extra `recordings`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geodtr.runtime.errors import ConfigError, DataError, ImageError, MissingDependency
from geodtr.runtime.files import readable
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.camera_model import CameraModel, camera_model_of
from geodtr.runtime.images.frames import Frame, Frames
from geodtr.runtime.images.ros_image import COMPRESSED, IMAGE, decompressed, pixels_of
from geodtr.runtime.images.video import check_opencv
from geodtr.runtime.installation import install_hint
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.recordings.topic import Raw, Topic

CAMERA_INFO, NAV_SAT_FIX = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/NavSatFix"
SUFFIXES = (".mcap", ".db3")

_MOST_FIXES = 10_000_000
_GAP = 2.0
"""Seconds between two positions of a receiver, beyond which nothing is known in between."""


class _File(Protocol):
    def topics(self) -> list[Topic]: ...

    def messages(self, topic: str) -> Iterator[Raw]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Where a satellite receiver was: times in seconds, rising, lat and lon in degrees, [N] each."""

    time: Floats
    lat: Floats
    lon: Floats

    def at(self, time: float) -> tuple[float, float] | None:
        """The position at a time, between those before and after; None where one of them is not within two seconds."""
        after = int(np.searchsorted(self.time, time))
        if after < len(self.time) and self.time[after] == time:
            return float(self.lat[after]), float(self.lon[after])
        if not 0 < after < len(self.time) or self.time[after] - self.time[after - 1] > _GAP:
            return None
        share = (time - self.time[after - 1]) / (self.time[after] - self.time[after - 1])
        turn = (self.lon[after] - self.lon[after - 1] + 180) % 360 - 180
        lat = self.lat[after - 1] + share * (self.lat[after] - self.lat[after - 1])
        return float(lat), float((self.lon[after - 1] + share * turn + 180) % 360 - 180)

    def before(self, time: float) -> tuple[float, float] | None:
        """The last position that was known at a time; None before the first."""
        count = int(np.searchsorted(self.time, time, side="right"))
        return None if count == 0 else (float(self.lat[count - 1]), float(self.lon[count - 1]))


class Recording:
    """An opened recording. Its files are opened for each question, and stay as they are."""

    def __init__(self, path: Path) -> None:
        """Raises DataError where there is no recording, MissingDependency without the extra."""
        _check_packages()
        self.path = path
        self._files = [(file, _opened(file)) for file in _files_of(path)]
        self.topics = dict[str, Topic]()
        for _, file in self._files:
            for topic in file.topics():
                before = self.topics.get(topic.name)
                count = topic.count + (0 if before is None else before.count)
                self.topics[topic.name] = replace(topic, count=count)

    def images(self) -> list[str]:
        """The topics that hold images."""
        return [topic.name for topic in self.topics.values() if topic.type in (IMAGE, COMPRESSED)]

    def frames(
        self, topic: str, *, every: int = 1, limit: int | None = None, prior: Track | None = None, radius: float = 0.0
    ) -> Frames:
        """The images of a topic, in order: each n-th if `every` is n, and at most `limit`. A message that is no image
        yields an ImageError in its place, and so does the end of a recording that breaks off.

        With a `prior`, a frame is searched within `radius` metres of the position that was last known at its time.
        Raises ConfigError naming the topics that there are, or the types that are read.
        """
        kind = self._require(topic, (IMAGE, COMPRESSED)).type
        count = -(-self.topics[topic].count // every)
        frames = self._frames(topic, kind, every)
        if prior is not None:
            frames = (_near(frame, prior, radius) for frame in frames)
        return Frames(islice(frames, limit), count if limit is None else min(count, limit), "recording", endless=False)

    def camera(self, topic: str) -> CameraModel:
        """The calibration in a topic's first camera_info. Raises ConfigError as `frames` does, and for values that no
        camera has.
        """
        check_opencv("--camera-topic needs")
        self._require(topic, (CAMERA_INFO,))
        raw = next(self._raw(topic), None)
        if raw is None:
            raise ConfigError(f"{self.path}: topic {topic} holds no message. Name another --camera-topic.")
        info = _decoded(raw[1], CAMERA_INFO, f"{self.path}{topic}")
        if info.width == 0 or info.height == 0 or not any(info.k):
            raise ConfigError(
                f"{self.path}: the camera_info of {topic} is empty, the camera was not calibrated. "
                "Leave --camera-topic out, or give --camera FILE."
            )
        values = {name: list(getattr(info, name)) for name in ("k", "d")}
        stated = {"width": info.width, "height": info.height, "distortion_model": info.distortion_model or "none"}
        return camera_model_of({**values, **stated}, Path(f"{self.path}{topic}"))

    def track(self, topic: str) -> Track:
        """A topic's positions, those without a fix left out. Raises ConfigError as `frames` does, and where none has
        a position.
        """
        self._require(topic, (NAV_SAT_FIX,))
        rows = list[tuple[float, float, float]]()
        with suppress(DataError):  # the frames report where a recording breaks off
            for name, raw in islice(self._raw(topic), _MOST_FIXES):
                fix = _decoded(raw, NAV_SAT_FIX, name)
                if fix.status.status >= 0 and abs(fix.latitude) <= 90 and abs(fix.longitude) <= 180:
                    rows.append((_time(fix, raw), fix.latitude, fix.longitude))
        if not rows:
            raise ConfigError(f"{self.path}: topic {topic} holds no position of a receiver that had a fix.")
        time, lat, lon = np.array(sorted(rows), np.float64).T.copy()
        return Track(time, lat, lon)

    def _require(self, name: str, kinds: Sequence[str]) -> Topic:
        topic = self.topics.get(name)
        if topic is None:
            there = ", ".join(f"{each.name} ({each.type or 'no type'})" for each in self.topics.values())
            raise ConfigError(f"{self.path} has no topic {name}. It has {there or 'no topic at all'}.")
        if topic.type not in kinds:
            raise ConfigError(f"{self.path}: topic {name} has {topic.type or 'no type'}; needed: {' or '.join(kinds)}.")
        if topic.encoding != "cdr":
            raise ConfigError(
                f"{self.path}: topic {name} is encoded as {topic.encoding[:20]!r}; allowed: cdr, as ROS 2 writes it."
            )
        return topic

    def _raw(self, topic: str) -> Iterator[tuple[str, Raw]]:
        """A topic's messages over all files, each with its name."""
        number = 0
        for path, file in self._files:
            for raw in file.messages(topic):
                yield f"{path}#{number}", raw
                number += 1

    def _frames(self, topic: str, kind: str, every: int) -> Iterator[Frame]:
        name = f"{self.path}"
        try:
            for number, (name, raw) in enumerate(self._raw(topic)):
                if number % every == 0:
                    yield _frame_of(name, raw, kind)
        except DataError as error:
            yield Frame(name, ImageError(str(error)))


def _frame_of(name: str, raw: Raw, kind: str) -> Frame:
    """A message's frame; with an ImageError where it holds no image."""
    try:
        message = _decoded(raw, kind, name)
        pixels = pixels_of(message, name) if kind == IMAGE else decompressed(message, name)
        return Frame(name, pixels, _time(message, raw))
    except (ImageError, DataError) as error:
        return Frame(name, ImageError(str(error)), raw.time / 1e9)


def _near(frame: Frame, prior: Track, radius: float) -> Frame:
    known = None if frame.time is None else prior.before(frame.time)
    return frame if known is None else replace(frame, near=Near(*known, radius))


def _time(message: Any, raw: Raw) -> float:
    """Seconds of the header's stamp; where the sender set none, of when the message was recorded."""
    stamp = message.header.stamp
    time = stamp.sec + stamp.nanosec / 1e9
    return float(time or raw.time / 1e9)


def _files_of(path: Path) -> list[Path]:
    """The files of a recording, in the order of the numbers in their names, as rosbag2 splits them."""
    with readable(DataError):
        if not path.is_dir():
            if path.suffix.lower() not in SUFFIXES:
                raise DataError(f"{path} {_NEITHER}")
            return [path]
        files = [each for each in path.iterdir() if each.suffix.lower() in SUFFIXES]
        zipped = sorted(each.name for each in path.iterdir() if each.suffix.lower() == ".zstd")
    if not files and zipped:
        raise DataError(f"{path} holds files that are compressed whole. Unpack them first: zstd -d {path / zipped[0]}")
    if not files:
        raise DataError(f"{path} {_NEITHER}")
    return sorted(files, key=lambda each: ([int(digits) for digits in re.findall(r"\d{1,18}", each.stem)], each.name))


_NEITHER = (
    "is no recording: allowed are .mcap, .db3, or a folder that holds such files. A .bag of ROS 1 is converted by "
    "rosbags-convert (pip install rosbags)."
)


def _opened(path: Path) -> _File:
    if path.suffix.lower() == ".db3":
        from geodtr.runtime.recordings.sqlite_bag import SqliteBag

        return SqliteBag(path)
    from geodtr.runtime.recordings.mcap_file import McapFile

    return McapFile(path)


def _decoded(raw: Raw, kind: str, name: str) -> Any:
    """A message's fields. Raises DataError for bytes that are none."""
    try:
        return _types().deserialize_cdr(raw.data, kind)
    except Exception as error:  # of damaged bytes it raises errors of many types
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{name} cannot be decoded as {kind} ({why}): it is damaged.") from None


@cache
def _types() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def _check_packages() -> None:
    try:
        import mcap  # noqa: F401 (only to see whether they can be imported)
        import rosbags  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"Recordings need mcap and rosbags, which cannot be imported ({error}): {install_hint('recordings')}"
        ) from None
