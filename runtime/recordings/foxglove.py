"""Answers as an MCAP file with Foxglove's schemas: positions, the frames, the tiles found, and what was remarkable.

Written beside its place and renamed at the end, so that the file is whole or not there. Sources: Foxglove's schemas
(package foxglove-schemas-protobuf); mcap.dev/guides for protobuf and JSON in MCAP.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from geodtr.runtime.files import check_new_file, new_file, signals_held
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.geodesy import displacement, rotation_of
from geodtr.runtime.installation import needing
from geodtr.runtime.localization.fix import SIGMAS_68
from geodtr.runtime.localization.waypoint import Waypoint, record
from geodtr.runtime.recordings.pictures import Pictures

SUFFIX = ".mcap"
FRAME = "map"
"""The frame of poses: metres east and north of the first position, and up."""

_RESERVE = 4 << 20
"""Bytes that a flight's recording holds back, so that a full disk has room for what makes the file whole."""
_TEXTS = ("state", "image", "position_of", "refined_tile", "uncalibrated", "unrefined", "doubt")
ANSWER: Mapping[str, Any] = {
    "title": "geodtr.Answer",
    "type": "object",
    "properties": {
        **{name: {"type": "number"} for name in record(Waypoint("no fix"))},
        **{name: {"type": "string"} for name in _TEXTS},
        "candidates": {"type": "array", "items": {"type": "object"}},
        "covariance_m2": {"type": "array", "items": {"type": "number"}},
        "recorded": {"type": "object"},
    },
}


_MESSAGES = {
    "/geodtr/fix": "LocationFix",
    "/geodtr/pose": "PoseInFrame",
    "/geodtr/image": "CompressedImage",
    "/geodtr/tiles": "GeoJSON",
    "/geodtr/log": "Log",
    "/geodtr/truth": "LocationFix",
}
"""The type of each topic's messages, of Foxglove's schemas."""


def _message(name: str) -> Any:
    return getattr(import_module(f"foxglove_schemas_protobuf.{name}_pb2"), name)


def check_mcap(path: Path) -> None:
    """Raise ConfigError when `path` does not end in .mcap, OutputExists when it is taken, MissingDependency without the
    extra.
    """
    check_new_file(path, (SUFFIX,))
    with needing("Writing MCAP needs mcap and foxglove-schemas-protobuf", "recordings"):
        import foxglove_schemas_protobuf  # noqa: F401 (only to see whether they can be imported)
        import mcap.writer  # noqa: F401


@contextmanager
def mcap_file(
    path: Path, pictures: Pictures, report: Callable[[str], object], *, live: bool = False
) -> Iterator[Callable[[Waypoint], object]]:
    """A new file, and the function that takes each answer for it, stored at its own time or when it came.

    For a `live` source an interruption counts as the end, and a disk that is full ends the recording and not the
    flight: `report` is called, and the file is what came before. Otherwise an error leaves nothing, and so does a run
    without an answer. Raises as `check_mcap`, and UserError when the disk refuses.
    """
    check_mcap(path)
    stopped: BaseException | None = None
    with suppress(_NothingRecorded), new_file(path, replace=False) as temporary, ExitStack() as closes:
        disk = closes.enter_context(_Disk(temporary, _RESERVE if live else 0))
        recorder = _Recorder(disk, pictures)
        refused: OSError | None = None
        reported = False

        def write(waypoint: Waypoint) -> None:
            nonlocal refused, reported
            if refused is not None or disk.full is not None:
                return
            try:
                with signals_held() as hold:  # half a message would make all behind it unreadable
                    hold()
                    recorder.write(waypoint)
            except OSError as error:
                if not live:
                    raise
                refused = error
            full = refused or disk.full
            if full is not None and not reported:
                reported = True
                report(f"{path} ends here ({full.strerror}): answers go on, and are no longer recorded.")

        try:
            yield write
        except BaseException as error:
            if not (live and recorder.count):
                raise
            stopped = error
        if refused is not None:
            raise refused
        if not recorder.count:
            raise _NothingRecorded
        with signals_held() as hold:
            hold()
            recorder.finish()
    if stopped is not None:
        raise stopped


class _NothingRecorded(Exception):
    """There is no answer, so there is no file."""


class _Disk:
    """A file to append to, for the writer of MCAP. With a reserve, a full disk takes what comes from that, and `full`
    is the reason to end.
    """

    def __init__(self, path: Path, reserve: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._size = 0
        self.full: OSError | None = None
        self._reserve = tempfile.TemporaryFile(dir=path.parent) if reserve else None  # noqa: SIM115 (closed when needed)
        if self._reserve is not None:
            for size in (reserve, reserve // 4, reserve // 16):
                with suppress(OSError):  # a file system that reserves nothing, or has no room for so much
                    os.posix_fallocate(self._reserve.fileno(), 0, size)
                    break

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            try:
                written = os.write(self._file, left)
            except OSError as error:
                if self._reserve is None:
                    raise
                self.full = error
                self._release()
                continue
            left = left[written:]
            self._size += written
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing is kept back."""

    def __enter__(self) -> "_Disk":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._release()

    def _release(self) -> None:
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None


class _Recorder:
    """Messages of one answer after the other."""

    def __init__(self, disk: _Disk, pictures: Pictures) -> None:
        from mcap.writer import Writer

        self.count = 0
        self._pictures = pictures
        self._state: str | None = None
        self._origin: tuple[float, float] | None = None
        self._writer = Writer(disk)  # type: ignore[arg-type] # it calls a stream's write, tell and flush alone
        self._writer.start(library="geodtr-export")
        self._channels = {
            topic: self._writer.register_channel(topic, "protobuf", self._schema(_message(name)))
            for topic, name in _MESSAGES.items()
        }
        schema = self._writer.register_schema("geodtr.Answer", "jsonschema", msgspec.json.encode(ANSWER))
        self._channels["/geodtr/answer"] = self._writer.register_channel("/geodtr/answer", "json", schema)

    def write(self, waypoint: Waypoint) -> None:
        now = int((time.time() if waypoint.time_s is None else max(waypoint.time_s, 0.0)) * 1e9)
        self.count += 1
        if waypoint.gnss_lat is not None and waypoint.gnss_lon is not None:
            self._location("/geodtr/truth", now, waypoint.gnss_lat, waypoint.gnss_lon)
        self._put("/geodtr/answer", now, encode_json(record(waypoint)))
        if waypoint.lat is not None and waypoint.lon is not None:
            self._location("/geodtr/fix", now, waypoint.lat, waypoint.lon, waypoint)
            self._pose(now, waypoint)
        self._tiles(now, waypoint)
        self._log(now, waypoint)
        jpeg = None if waypoint.image is None else self._pictures.take(waypoint.image)
        if jpeg is not None:
            self._send("/geodtr/image", now, frame_id="camera", data=jpeg, format="jpeg")

    def finish(self) -> None:
        self._writer.finish()  # type: ignore[no-untyped-call]

    def _location(self, topic: str, now: int, lat: float, lon: float, waypoint: Waypoint | None = None) -> None:
        fix: dict[str, Any] = {"frame_id": FRAME, "latitude": lat, "longitude": lon}
        if waypoint is not None and waypoint.altitude_m is not None:
            fix["altitude"] = waypoint.altitude_m
        if waypoint is not None and waypoint.within_68_m is not None:
            variance = (waypoint.within_68_m / SIGMAS_68) ** 2
            single = waypoint.state == "fix" and waypoint.covariance_m2  # a track's is of the frame, not of the answer
            ee, en, nn = single or (variance, 0.0, variance)
            fix["position_covariance"] = (ee, en, 0.0, en, nn, 0.0, 0.0, 0.0, 0.0)
            fix["position_covariance_type"] = _message("LocationFix").APPROXIMATED
        self._send(topic, now, **fix)

    def _pose(self, now: int, waypoint: Waypoint) -> None:
        assert waypoint.lat is not None and waypoint.lon is not None  # the caller's condition
        if self._origin is None:
            self._origin = (waypoint.lat, waypoint.lon)
        east, north = (float(part) for part in displacement(*self._origin, waypoint.lat, waypoint.lon))
        z, w = rotation_of(waypoint.heading)
        pose = {"position": {"x": east, "y": north}, "orientation": {"z": z, "w": w}}
        self._send("/geodtr/pose", now, frame_id=FRAME, pose=pose)

    def _tiles(self, now: int, waypoint: Waypoint) -> None:
        """The tiles that were found, as points with their scores."""
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": (each.place.lon, each.place.lat)},
                "properties": {"name": each.place.id, "score": each.score, "rank": rank},
            }
            for rank, each in enumerate(waypoint.candidates, 1)
            if each.place.lat is not None
        ]
        text = encode_json({"type": "FeatureCollection", "features": features}).decode("utf-8", "replace")
        self._put("/geodtr/tiles", now, _message("GeoJSON")(geojson=text).SerializeToString())

    def _log(self, now: int, waypoint: Waypoint) -> None:
        """A line where the state changes."""
        if waypoint.state == self._state:
            return
        before, self._state = self._state, waypoint.state
        level = "INFO" if waypoint.state in ("fix", "tracking") else "WARNING"
        text = waypoint.state if before is None else f"{before} -> {waypoint.state}"
        self._send("/geodtr/log", now, level=level, name="geodtr", message=text)

    def _send(self, topic: str, now: int, **fields: Any) -> None:
        message = _message(_MESSAGES[topic])(**fields)
        message.timestamp.FromNanoseconds(now)
        self._put(topic, now, message.SerializeToString())

    def _put(self, topic: str, now: int, data: bytes) -> None:
        self._writer.add_message(self._channels[topic], log_time=now, data=data, publish_time=now, sequence=self.count)

    def _schema(self, kind: Any) -> int:
        """Register a message's type with all those that it is made of."""
        from google.protobuf.descriptor_pb2 import FileDescriptorSet

        files: dict[str, Any] = {}

        def add(file: Any) -> None:
            if file.name not in files:
                for each in file.dependencies:
                    add(each)
                files[file.name] = file

        add(kind.DESCRIPTOR.file)
        described = FileDescriptorSet()
        for file in files.values():
            file.CopyToProto(described.file.add())
        data: bytes = described.SerializeToString()
        number: int = self._writer.register_schema(kind.DESCRIPTOR.full_name, "protobuf", data)
        return number
