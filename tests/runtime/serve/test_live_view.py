"""The live view: events of a folder, a video and a lost camera, for viewers that may be slow."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from serving import Running, serving, until
from tiny_world import SPACING, TinyWorld

from geodtr.cli.deploy.serve import _sourced
from geodtr.runtime.errors import ImageError
from geodtr.runtime.geodesy import distance
from geodtr.runtime.images import camera, frames
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.video import Seen
from geodtr.runtime.serve import live, source
from geodtr.runtime.serve.live import Live
from geodtr.runtime.serve.metrics import Metrics
from geodtr.runtime.serve.requests import Refused
from geodtr.runtime.serve.source import Sourced, paced, watched
from geodtr.runtime.tracking.odometry import read_odometry
from geodtr.runtime.tracking.synchronize import by_time


class Viewer:
    """Reads server-sent events."""

    def __init__(self, running: Running) -> None:
        self._connection = HTTPConnection("127.0.0.1", running.port, timeout=20)
        self._connection.request("GET", "/v1/stream")
        self._answer: HTTPResponse = self._connection.getresponse()
        assert self._answer.headers["Content-Type"].startswith("text/event-stream")

    def events(self) -> Iterator[tuple[str, Any]]:
        name = ""
        while line := self._answer.readline():
            kind, _, text = line.decode().rstrip("\n").partition(": ")
            if kind == "event":
                name = text
            elif kind == "data":
                yield name, json.loads(text)

    def until(self, name: str, **values: object) -> Any:
        """The next event of this name with these values."""
        for kind, document in self.events():
            if kind == name and all(document[key] == value for key, value in values.items()):
                return document
        raise AssertionError(f"no event {name} with {values}")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source, "LOOK", 0.05)
    monkeypatch.setattr(source, "AGAIN", 0.1)
    (tmp_path / "seen").mkdir()
    return tmp_path / "seen"


def of_folder(folder: Path) -> Sourced:
    return Sourced("seen", lambda stopped: watched(folder, stopped), again=True, skip=True)


def test_images_of_a_watched_folder_are_shown_as_they_come(tiny: TinyWorld, folder: Path) -> None:
    tiny.photograph(folder / "a.png", 10)
    with serving(tiny.bundle, tiny.gallery, of_folder(folder)) as running:
        viewer = Viewer(running)
        first = viewer.until("frame", image="a.png")
        assert first["state"] == "fix"
        assert first["answer"]["candidates"][0]["row"] == 10
        assert len(first["answer"]["heat"]) == 64
        assert str(folder) not in json.dumps(first)
        picture = running.ask(first["frame"])
        assert (picture.status, picture.headers["Content-Type"]) == (200, "image/jpeg")
        (folder / "bad.png").write_bytes(b"no image")
        (folder / "notes.txt").write_text("no image")
        (folder / "link.png").symlink_to("/etc/passwd")
        tiny.photograph(folder / "b.png", 20)
        assert viewer.until("frame", image="b.png")["answer"]["candidates"][0]["row"] == 20
        until(lambda: [line for line in running.reports if "bad.png" in line])  # it need not come before the next frame
        assert not [line for line in running.reports if "link" in line]
        viewer.close()
        later = Viewer(running)  # gets the trail and the last frame at once
        assert len(later.until("trail")["points"]) == 2
        assert later.until("frame")["image"] == "b.png"
        later.close()
        assert b'geodtr_frames_total{state="fix"} 2.0' in running.ask("/metrics").body


def test_a_folder_that_is_gone_is_reported_once_and_read_when_it_is_back(tiny: TinyWorld, folder: Path) -> None:
    with serving(tiny.bundle, tiny.gallery, of_folder(folder)) as running:
        viewer = Viewer(running)
        folder.rmdir()
        assert "cannot be watched" in viewer.until("source", state="lost")["message"]
        assert running.ask("/healthz").json["status"] == "degraded"
        viewer.until("source", state="lost")
        assert len(running.reports) == 1
        tiny.photograph(folder / "a.png", 10)
        assert viewer.until("frame")["image"] == "a.png"
        viewer.close()


@pytest.mark.usefixtures("folder")
def test_a_camera_that_is_gone_leaves_the_api_at_work(tiny: TinyWorld) -> None:
    returned = Event()

    def taken(stopped: Event) -> Iterator[Frame]:
        del stopped
        yield Frame("camera:0#0", tiny.panorama(5), time.time())
        if returned.is_set():
            yield Frame("camera:0#1", tiny.panorama(6), time.time())
        yield Frame("camera:0", ImageError("camera:0 stopped after 1 frames: unplugged, or lost."), None)

    with serving(tiny.bundle, tiny.gallery, Sourced("camera:0", taken, again=True)) as running:
        viewer = Viewer(running)
        assert "unplugged" in viewer.until("source", state="lost")["message"]
        assert running.ask("/v1/state").json["source"]["name"] == "camera:0"
        returned.set()
        assert viewer.until("frame", image="camera:0#1")["answer"]["candidates"][0]["row"] == 6
        viewer.close()
    assert sum("unplugged" in line for line in running.reports) == 1


@pytest.mark.usefixtures("folder")
def test_a_camera_with_odometry_is_opened_again_until_the_odometry_ends(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command line asks for it: --camera camera:0 --track -"""
    times = 0

    def lost_after_a_frame(*_: object) -> Iterator[Seen]:
        nonlocal times
        times += 1
        yield Seen(f"camera:0#{times}", tiny.panorama(5), time.time())
        yield Seen("camera:0", ImageError("camera:0 stopped: unplugged, or lost."), None)

    monkeypatch.setattr(frames, "read_camera", lost_after_a_frame)
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w", buffering=1) as rows:
        monkeypatch.setattr(sys, "stdin", stdin)
        rows.write("time_s,speed_m_s,yaw_rate_deg_s\n0,0,0\n")
        sourced = _sourced("camera:0", None, None, Path("-"), 1, None)
        with serving(tiny.bundle, tiny.gallery, sourced) as running:
            viewer = Viewer(running)
            for number in (1, 2, 3):
                rows.write(f"{number},1,0\n")
                assert viewer.until("frame", image=f"camera:0#{number}")["state"] == "searching"
            assert "unplugged" in viewer.until("source", state="lost")["message"]
            rows.close()
            viewer.until("source", state="ended")
            viewer.close()
            opened = times
            time.sleep(0.5)
            assert times == opened
    assert [line.partition(":0 ")[2] for line in running.reports] == [
        "stopped: unplugged, or lost. It is tried again every 0.1 s.",
        "has ended.",
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("place", "image"),
    [
        ("gst:videotestsrc ! video/x-raw, width=512 ! videoconvert ! appsink", "gst:videotestsrc#1"),
        ("rtsp://pilot:secret@127.0.0.1/nose/front", "rtsp://127.0.0.1/nose/front#1"),
    ],
)
def test_a_camera_has_a_name_to_read(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch, place: str, image: str) -> None:
    def taken(of: camera.Camera, every: int) -> Iterator[Seen]:
        del every
        yield Seen(f"{of.name}#1", tiny.panorama(5), time.time())

    monkeypatch.setattr(camera, "has_gstreamer", lambda: True)
    monkeypatch.setattr(frames, "read_camera", taken)
    with serving(tiny.bundle, tiny.gallery, _sourced(place, None, None, None, 1, None)) as running:
        viewer = Viewer(running)
        assert viewer.until("frame")["image"] == image
        assert running.ask("/v1/state").json["source"]["name"] == image.removesuffix("#1")
        viewer.close()


def test_a_track_goes_from_searching_to_tracking(tiny: TinyWorld, folder: Path) -> None:
    """A drive eastwards along a row of tiles."""
    rows = ["time_s,speed_m_s,yaw_rate_deg_s"] + [f"{step},{SPACING},0" for step in range(9)]
    odometry = folder / "drive.csv"
    odometry.write_text("\n".join(rows))
    start, seen = 8 * 4, Event()

    def driven(stopped: Event) -> Iterator[Frame]:
        del stopped
        assert seen.wait(10)
        for step in range(8):
            yield Frame(f"drive.mp4#{step}", tiny.panorama(start + step), float(step))

    def moments(each: Iterable[Frame]) -> Any:
        return by_time(each, read_odometry(odometry))

    with serving(tiny.bundle, tiny.gallery, Sourced("drive.mp4", driven, moments)) as running:
        viewer = Viewer(running)
        viewer.until("trail")
        seen.set()
        events = list(taken(viewer))
        viewer.close()
    assert {event["state"] for event in events} <= {"searching", "tracking", "lost"}
    assert events[-1]["state"] == "tracking"
    last = events[-1]
    assert distance(last["lat"], last["lon"], tiny.lat[start + 7], tiny.lon[start + 7]) < SPACING
    assert last["within_95_m"] > 0
    assert any("has ended" in line for line in running.reports)


def taken(viewer: Viewer) -> Iterator[Any]:
    for name, document in viewer.events():
        if name == "frame":
            yield document
        elif name == "source" and document["state"] == "ended":
            return


def test_a_video_is_played_at_its_own_pace() -> None:
    start = time.monotonic()
    video = [Frame(str(number), None, number / 10) for number in range(4)]
    assert [frame.name for frame in paced(video, Event())] == ["0", "1", "2", "3"]
    assert time.monotonic() - start >= 0.3
    stopped = Event()
    stopped.set()
    assert len(list(paced(video, stopped))) == 0


def test_a_file_that_is_still_being_written_waits(folder: Path, tiny: TinyWorld) -> None:
    stopped = Event()
    whole = tiny.photograph(folder.parent / "whole.png", 3).read_bytes()
    file = folder / "a.png"
    file.write_bytes(whole[:50])
    seen = watched(folder, stopped)
    assert source._images_in(folder)
    shutil.copy(folder.parent / "whole.png", file)
    assert next(seen).image == file


def test_a_slow_viewer_gets_the_newest_and_holds_nobody_up(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_WAITING", 4)
    monkeypatch.setattr(live, "_VIEWERS", 2)
    with serving(tiny.bundle, tiny.gallery) as running:
        slow, quick = Viewer(running), Viewer(running)
        slow.until("trail")
        quick.until("trail")
        refused = running.ask("/v1/stream")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
        large = "x" * 100_000
        for number in range(200):  # 20 MB: far more than the sockets hold
            running.server.live.tell("gallery", {"number": number, "text": large})
            time.sleep(0.002)
            if number % 50 == 49:
                assert quick.until("gallery", number=number)["number"] == number
        numbers = []
        for name, document in slow.events():
            if name == "gallery":
                numbers.append(document["number"])
                if numbers[-1] == 199:
                    break
        assert len(numbers) < 200
        assert numbers == sorted(numbers)
        slow.close()
        quick.close()


def test_viewers_count_from_the_moment_that_they_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_VIEWERS", 2)

    async def come() -> None:
        view = Live(Metrics())
        first, _ = view.subscribe(), view.subscribe()  # none has taken an event yet
        with pytest.raises(Refused):
            view.subscribe()
        view.leave(first)
        view.subscribe()

    asyncio.run(come())


def test_a_viewer_that_goes_leaves_its_place_to_others(tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_VIEWERS", 1)
    monkeypatch.setattr(live, "HEARTBEAT", 0.1)
    with serving(tiny.bundle, tiny.gallery) as running:
        for _ in range(3):
            viewer = Viewer(running)
            viewer.until("trail")
            viewer.close()
            while b"geodtr_viewers 0.0" not in running.ask("/metrics").body:
                time.sleep(0.01)
