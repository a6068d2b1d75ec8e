"""MCAP files of answers, read back by mcap's own reader; and what a full disk or an interruption leaves."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foxglove_messages import read
from foxglove_schemas_protobuf.Log_pb2 import Log
from PIL import Image

from geodtr import UserError
from geodtr.runtime.errors import ConfigError, OutputExists
from geodtr.runtime.images.frames import Frame, Frames
from geodtr.runtime.localization.waypoint import Candidate, Waypoint
from geodtr.runtime.recordings import foxglove
from geodtr.runtime.recordings.foxglove import mcap_file
from geodtr.runtime.recordings.pictures import Pictures
from geodtr.runtime.recordings.receiver import Track
from geodtr.runtime.sources.tile import Tile

TILE = Candidate(0, Tile("a/1", "a.png", -30.0, -15.0), 0.9)
ANSWER = Waypoint("fix", "cam#0", 1.7e9, -30.0, -15.0, 90.0, 15.1, 30.0, candidates=(TILE,))
LOST = Waypoint("no fix", "cam#1", 1.7e9 + 1)


def quiet(text: str) -> None:
    raise AssertionError(text)


def test_answers_are_read_back_as_they_were_given(tmp_path: Path) -> None:
    path = tmp_path / "new" / "flight.mcap"
    track = Track("/fix", np.array([1.7e9 - 1, 1.7e9 + 1]), np.array([-30.0, -30.0]), np.array([-15.0, -15.0]))
    recorded = track.beside(Frame("cam#0", None, 1.7e9)).recorded
    pixels = np.random.default_rng(0).integers(0, 256, (300, 1280, 3), np.uint8)
    pictures = Pictures()
    frames = pictures.of(Frames(iter([Frame("bad", pixels), Frame("cam#0", pixels)]), 2, "video", endless=False))
    assert len(list(frames.frames)) == 2
    with mcap_file(path, pictures, quiet) as write:
        write(ANSWER.beside(recorded))
        write(LOST.beside(recorded))
        assert not path.exists()
    messages = read(path)
    (fix,) = messages["/geodtr/fix"]
    assert (fix.latitude, fix.longitude, fix.frame_id) == (-30.0, -15.0, "map")
    assert list(fix.position_covariance) == pytest.approx([100, 0, 0, 0, 100, 0, 0, 0, 0], rel=2e-3)
    (pose,) = messages["/geodtr/pose"]
    assert (pose.pose.position.x, pose.pose.orientation.z, pose.pose.orientation.w) == (0.0, 0.0, 1.0)
    assert [(each.level, each.message) for each in messages["/geodtr/log"]] == [
        (Log.INFO, "fix"),
        (Log.WARNING, "fix -> no fix"),
    ]
    (picture,) = messages["/geodtr/image"]
    (tmp_path / "picture.jpg").write_bytes(picture.data)
    with Image.open(tmp_path / "picture.jpg") as image:
        assert (image.size, picture.format) == ((640, 150), "jpeg")
    (feature,) = json.loads(messages["/geodtr/tiles"][0].geojson)["features"]
    assert (feature["geometry"]["coordinates"], feature["properties"]["score"]) == ([-15.0, -30.0], 0.9)
    assert [(each["state"], each["gnss_off_m"]) for each in messages["/geodtr/answer"]] == [
        ("fix", 0.0),
        ("no fix", None),
    ]
    assert len(messages["/geodtr/truth"]) == 2


def test_the_picture_of_a_file_is_read_when_its_answer_comes(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "street.png")
    path = tmp_path / "flight.mcap"
    with mcap_file(path, Pictures(), quiet) as write:
        write(Waypoint("no fix", str(tmp_path / "street.png")))
        write(Waypoint("no fix", str(tmp_path / "gone.png")))
    assert len(read(path)["/geodtr/image"]) == 1


def test_places_that_cannot_be_written_are_refused_before_the_flight(tmp_path: Path) -> None:
    taken = tmp_path / "taken.mcap"
    taken.write_bytes(b"")
    for path, error, words in (
        (taken, OutputExists, "exists"),
        (tmp_path / "flight.bag", ConfigError, r"\.mcap"),
        (taken / "below.mcap", UserError, "cannot be written"),
    ):
        with pytest.raises(error, match=words), mcap_file(path, Pictures(), quiet):
            pass


@pytest.mark.parametrize("live", [True, False])
def test_an_interruption_is_the_end_of_a_flight_and_leaves_nothing_of_other_sources(tmp_path: Path, live: bool) -> None:
    path = tmp_path / "flight.mcap"
    with pytest.raises(SystemExit), mcap_file(path, Pictures(), quiet, live=live) as write:
        write(ANSWER)
        raise SystemExit(130)
    assert path.exists() == live
    assert [each.name for each in tmp_path.iterdir()] == (["flight.mcap"] if live else [])
    if live:
        assert len(read(path)["/geodtr/answer"]) == 1


def test_a_signal_waits_until_an_answer_is_recorded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flight.mcap"

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    def raised(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, leave)
    monkeypatch.setattr(foxglove._Recorder, "_tiles", raised)  # in the middle of an answer
    try:
        with pytest.raises(SystemExit), mcap_file(path, Pictures(), quiet, live=True) as write:
            write(ANSWER)
            raise AssertionError("the signal is lost")
    finally:
        signal.signal(signal.SIGINT, before)
    assert {"/geodtr/answer", "/geodtr/log"} <= read(path).keys()


@contextmanager
def disk_of(patch: pytest.MonkeyPatch, room: int, kept_back: int) -> Iterator[None]:
    """A disk with so many bytes; a reserve takes `kept_back` of them until it is given back."""
    left = [room]
    write, reserve = os.write, foxglove._Disk._release

    def bounded(file: int, data: Any) -> int:
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        written = write(file, data[: left[0]])
        left[0] -= written
        return written

    def release(disk: Any) -> None:
        left[0] += kept_back
        reserve(disk)

    with patch.context() as context:
        context.setattr(os, "write", bounded)
        context.setattr(foxglove._Disk, "_release", release)
        yield


def many(write: Callable[[Waypoint], object]) -> None:
    noise = np.random.default_rng(0)
    for number in range(1500):
        name = noise.bytes(700).hex()
        write(Waypoint("fix", name, float(number), -30.0, -15.0))


def test_a_full_disk_ends_the_recording_of_a_flight_and_not_the_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, warnings = tmp_path / "flight.mcap", list[str]()
    with (
        disk_of(monkeypatch, 700_000, 2_000_000),
        mcap_file(path, Pictures(), warnings.append, live=True) as write,
    ):
        many(write)
    (text,) = warnings
    assert f"{path} ends here (No space left on device)" in text
    kept = read(path)["/geodtr/answer"]
    assert 100 < len(kept) < 1500
    assert [each["time_s"] for each in kept] == list(range(len(kept)))


@pytest.mark.parametrize("live", [True, False])
def test_a_disk_without_room_leaves_nothing_and_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    path, warnings, flown = tmp_path / "flight.mcap", list[str](), []
    with (
        pytest.raises(UserError, match=r"No space is left on the disk of .*: nothing was written"),
        disk_of(monkeypatch, 700_000, 0),
        mcap_file(path, Pictures(), warnings.append, live=live) as write,
    ):
        many(write)
        flown.append(True)
    assert (list(tmp_path.iterdir()), len(warnings), len(flown)) == ([], int(live), int(live))
