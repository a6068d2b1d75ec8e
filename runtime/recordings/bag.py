"""A recording of a drive or a flight as a source of frames: a ROS 2 bag (a folder, .db3 or .mcap), or an MCAP file.

Frames, the camera's calibration, and positions of a satellite receiver, each from a topic of its own; times come
from the messages' headers, in seconds since 1970 where the recorder's clock was right. The package `rosbags` decodes
messages, by its own definitions and not by those that a recording brings. Extra `recordings`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.files import readable
from geodtr.runtime.images.camera_model import CameraModel, camera_model_of
from geodtr.runtime.images.frames import Frame, Frames
from geodtr.runtime.images.ros_image import COMPRESSED, IMAGE, decompressed, pixels_of
from geodtr.runtime.images.video import check_opencv
from geodtr.runtime.installation import needing
from geodtr.runtime.recordings.parts import FIRST, LAST, Part, in_time
from geodtr.runtime.recordings.receiver import Prior, Track
from geodtr.runtime.recordings.topic import Raw, Topic, why_of

CAMERA_INFO, NAV_SAT_FIX = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/NavSatFix"
SUFFIXES = (".mcap", ".db3")

OnBadMessage = Callable[[str], None]
"""Called with what is left out of a track and why; raises where nothing may be."""

_MOST_FIXES = 10_000_000


class _File(Protocol):
    def topics(self) -> list[Topic]: ...

    def parts(self, topic: str) -> list[Part]: ...


class Recording:
    """An opened recording. Its files are opened for each question, and stay as they are."""

    def __init__(self, path: Path) -> None:
        """Raises DataError where no file of a recording can be read, MissingDependency without the extra. One of
        several that cannot be read is reported with the frames.
        """
        with needing("Recordings need mcap and rosbags", "recordings"):
            import mcap  # noqa: F401 (only to see whether they can be imported)
            import rosbags  # noqa: F401
        self.path = path
        self._files = list[_File]()
        self._unread = list[tuple[Path, DataError]]()
        self.topics = dict[str, Topic]()
        for place in _files_of(path):
            try:
                file = _opened(place)
                topics = file.topics()
            except DataError as error:
                self._unread.append((place, error))
                continue
            self._files.append(file)
            for topic in topics:
                before = self.topics.get(topic.name)
                count = topic.count + (0 if before is None else before.count)
                self.topics[topic.name] = replace(topic, count=count)
        if not self._files:
            raise self._unread[0][1]

    def images(self) -> list[str]:
        """The topics that hold images."""
        return [topic.name for topic in self.topics.values() if topic.type in (IMAGE, COMPRESSED)]

    def only_images(self) -> str:
        """The topic that holds images. Raises ConfigError, naming what there is, where none or several do."""
        images = self.images()
        if len(images) == 1:
            return images[0]
        if images:
            raise ConfigError(f"{self.path} has several topics with images. Name one: --topic {' or '.join(images)}")
        raise ConfigError(f"{self.path} has no topic of type Image or CompressedImage. It has {self._listed('none')}.")

    def _listed(self, none: str) -> str:
        return ", ".join(f"{each.name} ({each.type or 'no type'})" for each in self.topics.values()) or none

    def frames(
        self,
        topic: str,
        *,
        every: int = 1,
        limit: int | None = None,
        prior: Prior | None = None,
        truth: Track | None = None,
    ) -> Frames:
        """The images of a topic, in the order in which they were recorded: each n-th if `every` is n, and at most
        `limit`. A message that is no image yields an ImageError in its place, and so do a part that is damaged, a frame
        that a file without an index holds behind a later one, and one for which `prior` knows no position. The
        positions of `truth` are what is recorded of the frames.

        Raises ConfigError naming the topics that there are, or the types that are read.
        """
        kind = self._require(topic, (IMAGE, COMPRESSED)).type
        count = -(-self.topics[topic].count // every)
        frames = self._frames(topic, kind, every)
        if prior is not None:
            frames = map(prior.joined, frames)
        if truth is not None:
            frames = map(truth.beside, frames)
        return Frames(islice(frames, limit), count if limit is None else min(count, limit), "recording", endless=False)

    def camera(self, topic: str) -> CameraModel:
        """The calibration in a topic's first camera_info. Raises ConfigError as `frames` does, and for values that no
        camera has.
        """
        check_opencv("The calibration of a topic needs")
        self._require(topic, (CAMERA_INFO,))
        raw = None
        for _, raw in self._messages(topic):
            if isinstance(raw, Raw):
                break
        if raw is None:
            raise ConfigError(f"{self.path}: topic {topic} holds no message. Name another --camera-topic.")
        if isinstance(raw, DataError):
            raise raw
        info = _decoded(raw, CAMERA_INFO, f"{self.path}{topic}")
        if info.width == 0 or info.height == 0 or not any(info.k):
            raise ConfigError(
                f"{self.path}: the camera_info of {topic} is empty, the camera was not calibrated. "
                "Leave --camera-topic out, or give --undistort FILE."
            )
        values = {name: list(getattr(info, name)) for name in ("k", "d")}
        stated = {"width": info.width, "height": info.height, "distortion_model": info.distortion_model or "none"}
        return camera_model_of({**values, **stated}, Path(f"{self.path}{topic}"))

    def track(self, topic: str, on_bad: OnBadMessage) -> Track:
        """A topic's positions, those without a fix left out. Messages that are damaged, or state a position that is not
        on Earth, are named to `on_bad`, and left out. Raises ConfigError as `frames` does, and where none has a
        position.
        """
        self._require(topic, (NAV_SAT_FIX,))
        rows, count = list[tuple[float, float, float]](), 0
        bad = list[str]()
        for name, raw in islice(self._messages(topic), _MOST_FIXES):
            if isinstance(raw, DataError):
                on_bad(f"{topic}: {raw}")
                continue
            count += 1
            try:
                fix = _decoded(raw, NAV_SAT_FIX, name)
            except DataError as error:
                bad.append(str(error))
                continue
            if fix.status.status < 0 or isnan(fix.latitude) or isnan(fix.longitude):
                continue
            if abs(fix.latitude) <= 90 and abs(fix.longitude) <= 180:
                rows.append((_time(fix, raw), fix.latitude, fix.longitude))
            else:
                bad.append(f"{name} states {fix.latitude:g}, {fix.longitude:g}, which is not on Earth.")
        if bad:
            on_bad(f"{topic}: {len(bad)} of {count} messages state no position. The first: {bad[0]}")
        if not rows:
            raise ConfigError(f"{self.path}: topic {topic} holds no position of a receiver that had a fix.")
        time, lat, lon = np.array(sorted(rows), np.float64).T.copy()
        return Track(topic, time, lat, lon)

    def _require(self, name: str, kinds: Sequence[str]) -> Topic:
        topic = self.topics.get(name)
        if topic is None:
            unread = f" Of its files {len(self._unread)} cannot be read: {self._unread[0][1]}" if self._unread else ""
            raise ConfigError(f"{self.path} has no topic {name}. It has {self._listed('no topic at all')}.{unread}")
        if topic.type not in kinds:
            raise ConfigError(f"{self.path}: topic {name} has {topic.type or 'no type'}; needed: {' or '.join(kinds)}.")
        if topic.encoding != "cdr":
            raise ConfigError(
                f"{self.path}: topic {name} is encoded as {topic.encoding[:20]!r}; allowed: cdr, as ROS 2 writes it."
            )
        return topic

    def _messages(self, topic: str) -> Iterator[tuple[str, Raw | DataError]]:
        """A topic's messages over all files in time, each with its name, and the errors of what cannot be read."""
        parts = [part for file in self._files for part in file.parts(topic)]
        parts += [Part(path, LAST, partial(iter, (error,))) for path, error in self._unread]
        number = 0
        for path, raw in in_time(parts):
            yield f"{path}#{number}", raw
            number += isinstance(raw, Raw)

    def _frames(self, topic: str, kind: str, every: int) -> Iterator[Frame]:
        number, last = 0, FIRST
        for name, raw in self._messages(topic):
            if isinstance(raw, DataError):
                yield Frame(name, ImageError(str(raw)))
                continue
            if number % every == 0:
                yield _frame_of(name, raw, kind) if raw.time >= last else _late(name, raw, last)
            number, last = number + 1, max(last, raw.time)


def _late(name: str, raw: Raw, last: int) -> Frame:
    error = ImageError(
        f"{name} was recorded at {raw.time / 1e9:.3f} s, and stands behind one of {last / 1e9:.3f} s in a file without "
        "an index. Put the file in order: mcap sort"
    )
    return Frame(name, error, raw.time / 1e9)


def _frame_of(name: str, raw: Raw, kind: str) -> Frame:
    """A message's frame; with an ImageError where it holds no image."""
    try:
        message = _decoded(raw, kind, name)
        pixels = pixels_of(message, name) if kind == IMAGE else decompressed(message, name)
        return Frame(name, pixels, _time(message, raw))
    except (ImageError, DataError) as error:
        return Frame(name, ImageError(str(error)), raw.time / 1e9)


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
        raise DataError(f"{name} cannot be decoded as {kind} ({why_of(error)}): it is damaged.") from None


@cache
def _types() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)
