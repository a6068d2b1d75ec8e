"""Recordings: MCAP and SQLite files of ROS 2, damaged in their structure, their compression and their messages."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from bags import BEGAN, CAMERA, GNSS, INFO, TYPES, camera_info, compressed, image, nav_sat_fix, write_bag
from hostile import damaged
from hypothesis import strategies as st
from kinds import Kind, Maker, of_file

from geodtr import UserError
from geodtr.runtime.errors import DataError
from geodtr.runtime.images.frames import decode_frame
from geodtr.runtime.recordings.bag import Recording, _frame_of
from geodtr.runtime.recordings.topic import Raw

_PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
_SENT = [
    (INFO, camera_info(6, 4, 5.0)),
    (CAMERA, image(_PIXELS, BEGAN)),
    ("/zipped", compressed(_PIXELS, BEGAN)),
    (GNSS, nav_sat_fix(10.0, 20.0, BEGAN)),
    (CAMERA, image(_PIXELS, BEGAN + 1)),
]


def _read(path: Path) -> None:
    """Everything that a recording may be asked for; one bad topic does not spare the others."""
    recording = Recording(path)
    refusals = list[UserError]()
    for ask in (
        lambda: _frames(recording, CAMERA),
        lambda: _frames(recording, "/zipped"),
        lambda: recording.camera(INFO),
    ):
        try:
            ask()
        except UserError as error:
            refusals.append(error)
    recording.track(GNSS, _refuse)
    if refusals:
        raise refusals[0]


def _refuse(reason: str) -> None:
    raise DataError(reason)


def _frames(recording: Recording, topic: str) -> None:
    for frame in recording.frames(topic).frames:
        decode_frame(frame)


def _bag(storage: Literal["mcap", "sqlite3"], zipped: Literal["message", "storage"] | None) -> Maker:
    def make(root: Path) -> Kind:
        folder = write_bag(root / "drive", _SENT, storage, zipped=zipped)
        (file,) = [each for each in folder.iterdir() if each.suffix in (".mcap", ".db3")]
        content = file.read_bytes()
        return of_file(file, damaged(content, len(content)), lambda: _read(file))

    return make


mcap = _bag("mcap", None)
mcap_zipped = _bag("mcap", "storage")
sqlite = _bag("sqlite3", None)
sqlite_zipped = _bag("sqlite3", "message")


def messages(root: Path) -> Kind:
    """Images as ROS 2 encodes them, each field of any value."""
    del root
    kinds = {each.__msgtype__: bytes(TYPES.serialize_cdr(each, each.__msgtype__)) for _, each in _SENT[1:3]}
    inputs = st.one_of([st.tuples(st.just(kind), damaged(data, 160)) for kind, data in kinds.items()])

    def use(content: tuple[str, Any]) -> None:
        kind, data = content
        decode_frame(_frame_of("a.mcap#0", Raw(1, data), kind))

    return Kind(inputs, use, next(iter(kinds.items())))
