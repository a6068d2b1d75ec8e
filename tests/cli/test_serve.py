"""The command `serve` as its own process: a video as a live view, a signal, and what is missing."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import cv2
import pytest
from serving import png
from tiny_world import TinyWorld


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    content = answer.read() if path != "/v1/stream" else next(line for line in answer if b'"number":' in line)
    connection.close()
    return answer.status, content


def test_a_video_is_shown_as_a_track_until_a_signal_ends_it(tiny: TinyWorld, tmp_path: Path) -> None:
    video, odometry = tmp_path / "stands.mkv", tmp_path / "stands.csv"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (64, 16))
    for frame in range(20):
        writer.write(cv2.cvtColor(tiny.panorama(35, seed=frame), cv2.COLOR_RGB2BGR))
    writer.release()
    odometry.write_text("time_s,speed_m_s,yaw_rate_deg_s\n" + "".join(f"{step / 10},0,0\n" for step in range(21)))
    line = ("serve", "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--port", 0)
    live = ("--video", video, "--track", odometry)
    process = subprocess.Popen(
        [sys.executable, "-m", "geodtr", *map(str, (*line, *live))], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        started = re.fullmatch(r"Serving on http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)\n", process.stderr.readline())
        assert started is not None
        port = int(started[1])
        assert ask(port, "/v1/locate", png(tiny.panorama(7)))[0] == 200
        assert "stands.mkv has ended" in process.stderr.readline()
        events = ask(port, "/v1/stream")[1].decode()
        assert '"state":"tracking"' in events
        assert '"image":"stands.mkv#19"' in events
        assert str(tmp_path) not in events
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr.read() == "Ended; all that was accepted is answered.\n"


_SLOW = """
import sys, threading
from geodtr import Localizer
from geodtr.runtime.serve import server
from geodtr.cli.main import run

def embed(self, prepared):
    print("embedding", file=sys.stderr, flush=True)
    threading.Event().wait(float(sys.argv[1]))
    raise RuntimeError

Localizer.embed, server._FINISHING = embed, 0.3
run(sys.argv[2:])
"""
"""The command with an engine that takes as long as its first argument states."""


@pytest.mark.parametrize(
    ("engine", "signals", "code", "last"),
    [
        ("2", 1, 0, "Ended; images not answered in time, and refused with 503: 1.\n"),
        ("600", 2, 130, "Warning: Ended at once; accepted images that are not answered: 1.\n"),
    ],
)
def test_work_that_takes_too_long_does_not_keep_it_from_ending(
    tiny: TinyWorld, engine: str, signals: int, code: int, last: str
) -> None:
    line = ("serve", "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--port", 0)
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, engine, *map(str, line)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with ThreadPoolExecutor() as clients:
        try:
            port = int(re.findall(r":(\d+) ", process.stderr.readline())[0])
            answer = clients.submit(ask, port, "/v1/locate", png(tiny.panorama(7)))
            assert process.stderr.readline() == "embedding\n"
            process.send_signal(signal.SIGINT)
            assert answer.result()[0] == 503
            if signals == 2:
                process.send_signal(signal.SIGINT)
            assert process.wait(30) == code
        finally:
            process.kill()
    assert process.stderr.read() == last


def test_the_extra_is_named_where_it_is_missing(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [each for each in sys.modules if each.startswith(("geodtr.runtime.serve.", "starlette"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    message = refused("serve", "--bundle", tmp_path / "gone", "--gallery", tmp_path / "gone", "--port", 0)
    assert "starlette" in message
    assert "[serve]" in message
