"""Localising videos and cameras, with and without odometry: an immediate answer for each frame, a clean end."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
from checkout import SUPPORT
from conftest import Outcome
from gpx_schema import check_gpx
from tiny_world import SPACING, TinyWorld

from geodtr.runtime.geodesy import distance

RATE = 10.0
SLOWLY = 4
"""Frames from one tile to the next."""
FRAMES = 7 * SLOWLY + 1
ALONG = 4
"""The row of tiles that the drive goes along, eastwards."""
SPEED = SPACING * RATE / SLOWLY
HEADER = "time_unix_s,speed_m_s,yaw_rate_deg_s"
NOON = 1.7e9


@pytest.fixture(scope="module")
def video(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive over eight tiles; each frame shows the tile that is nearest."""
    path = tmp_path_factory.mktemp("video") / "drive.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), RATE, (64, 16))
    for frame in range(FRAMES):
        seen = tiny.panorama(shown(frame), heading=90, seed=frame)
        writer.write(cv2.cvtColor(seen, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def shown(frame: int) -> int:
    return 8 * ALONG + round(frame / SLOWLY)


@pytest.fixture
def asked(tiny: TinyWorld) -> tuple[object, ...]:
    return ("--bundle", tiny.bundle, "--gallery", tiny.gallery, "--headings", 16, "--json")


def answers_of(printed: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in printed.splitlines()]


def rows(first: int, last: int, start: float = NOON) -> str:
    """Odometry of the drive's frames `first` to `last`, at twice their rate."""
    times = (start + step / (2 * RATE) for step in range(2 * first, 2 * last + 1))
    return "".join(f"{moment:.3f},{SPEED},0\n" for moment in times)


def write_odometry(folder: Path, content: str) -> Path:
    path = folder / "odometry.csv"
    path.write_text(content)
    return path


def test_a_videos_frames_are_answered_with_their_names_and_times(
    video: Path, asked: tuple[object, ...], cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    out = tmp_path / "fixes.csv"
    printed = cli("localize", video, *asked, "--every", 4, "--limit", 5, "--out", out)
    assert printed.code == 0, printed.err
    answers = answers_of(printed.out)
    assert [answer["image"] for answer in answers] == [f"{video}#{number}" for number in (0, 4, 8, 12, 16)]
    assert [answer["time_s"] for answer in answers] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6], abs=0.002)
    assert [candidates_of(answer)[0]["row"] for answer in answers] == [32, 33, 34, 35, 36]
    assert len(out.read_text().splitlines()) == 6


def candidates_of(answer: dict[str, object]) -> list[dict[str, object]]:
    candidates = answer["candidates"]
    assert isinstance(candidates, list)
    return candidates


def test_a_terminal_gets_a_line_a_frame(video: Path, asked: tuple[object, ...], cli: Callable[..., Outcome]) -> None:
    printed = cli("localize", video, *asked[:-1], "--limit", 3)
    assert [line.split()[1] for line in printed.out.splitlines()] == ["position"] * 3
    assert "drive.mkv#2" in printed.out


def test_a_video_is_tracked_by_the_odometrys_times(
    video: Path, asked: tuple[object, ...], tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    odometry, out = write_odometry(tmp_path, f"{HEADER}\n{rows(0, FRAMES - 1)}"), tmp_path / "drive.gpx"
    printed = cli("localize", video, *asked, "--track", odometry, "--out", out)
    assert printed.code == 0, printed.err
    answers = answers_of(printed.out)
    assert [answer["image"] for answer in answers] == [f"{video}#{number}" for number in range(FRAMES)]
    assert [answer["time_s"] for answer in answers] == pytest.approx([NOON + n / RATE for n in range(FRAMES)], abs=0.01)
    assert_it_arrives(tiny, answers[-1], FRAMES - 1)
    check_gpx(out.read_bytes())
    assert b"2023-11-14T22:13" in out.read_bytes()


def assert_it_arrives(tiny: TinyWorld, point: dict[str, Any], frame: int) -> None:
    assert point["state"] == "tracking"
    assert distance(point["lat"], point["lon"], tiny.lat[shown(frame)], tiny.lon[shown(frame)]) < SPACING / 2


def test_odometry_may_begin_and_end_within_the_video(
    video: Path, asked: tuple[object, ...], cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    odometry = write_odometry(tmp_path, f"{HEADER}\n{rows(4, 12)}")
    printed = cli("localize", video, *asked, "--track", odometry, "--video-start", NOON)
    names = [answer["image"] for answer in answers_of(printed.out)]
    assert names == [f"{video}#{number}" for number in range(4, 13)]


def test_a_video_that_has_nothing_to_do_with_the_odometry_is_refused(
    video: Path, asked: tuple[object, ...], refused: Callable[..., str], tmp_path: Path
) -> None:
    odometry = write_odometry(tmp_path, f"{HEADER}\n{rows(4, 12)}")
    message = refused("localize", video, *asked, "--track", odometry, "--video-start", 0)
    assert "No frame lies within the times" in message
    assert "--video-start" in message


def test_what_does_not_go_together_is_refused(
    video: Path, asked: tuple[object, ...], tiny: TinyWorld, refused: Callable[..., str], tmp_path: Path
) -> None:
    image = tiny.photograph(tmp_path / "street.png", 3)
    odometry = write_odometry(tmp_path, f"{HEADER}\n{rows(0, 3)}")
    track = ("--track", odometry)
    assert "column image" in refused("localize", image, *asked, *track)
    assert "column image" in refused("localize", video, video, *asked, *track)
    assert "--track -" in refused("localize", "camera:0", *asked, *track)
    assert "not the only source" in refused("localize", "camera:0", video, *asked)
    assert "--track as well" in refused("localize", video, *asked, "--video-start", 3)
    assert "finite" in refused("localize", video, *asked, *track, "--video-start", "nan")
    assert "for IMAGES" in refused("localize", *asked, *track, "--limit", 3)
    assert "needs a video" in refused("localize", *asked, *track, "--video-start", 3)
    listing = write_odometry(tmp_path, f"{HEADER},image\n{NOON},1,0,street.png\n")
    assert "Drop one" in refused("localize", video, *asked, "--track", listing)


def test_a_video_that_breaks_off_is_an_error_or_a_gap(
    video: Path, asked: tuple[object, ...], cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    odometry = write_odometry(tmp_path, f"{HEADER}\n{rows(0, FRAMES)}")
    for tracked in ((), ("--track", odometry)):
        stopped = cli("localize", broken, *asked, *tracked)
        assert stopped.code == 2
        assert "breaks off" in stopped.err
        skipped = cli("localize", broken, *asked, *tracked, "--on-error", "skip")
        assert skipped.code == 0, skipped.err
        assert "breaks off" in skipped.err
        assert len(answers_of(skipped.out)) >= len(answers_of(stopped.out)) > 0


@contextmanager
def started(video: Path, *arguments: object, hangs_after: int = 10**6) -> Iterator[subprocess.Popen[str]]:
    """geodtr-export in a process of its own, with the video as a camera."""
    script = SUPPORT / "fake_camera.py"
    line = [sys.executable, str(script), str(video), str(hangs_after), *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    return dict(json.loads(line))


def tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


@pytest.mark.parametrize("suffix", ["jsonl", "gpx"])
def test_a_camera_is_answered_immediately_and_ends_with_ctrl_c(
    video: Path, asked: tuple[object, ...], tmp_path: Path, suffix: str
) -> None:
    pytest.importorskip("matplotlib")
    out, picture = tmp_path / f"fixes.{suffix}", tmp_path / "fixes.png"
    with started(video, "localize", "camera:0", *asked, "--out", out, "--picture", picture) as process:
        answers = [line_of(process) for _ in range(5)]
        now = time.time()
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=20)
        assert process.returncode == 130, messages
    assert "Traceback" not in messages
    times = [answer["time_s"] for answer in answers]
    assert times == sorted(times, key=float)  # type: ignore[arg-type]
    assert now - 5 < float(str(times[-1])) <= now
    assert picture.stat().st_size > 0
    if suffix == "gpx":
        check_gpx(out.read_bytes())
        assert out.read_bytes().count(b"<time>") >= 5
    else:
        assert len(out.read_text().splitlines()) >= 5


def test_a_camera_ends_after_the_limit(video: Path, asked: tuple[object, ...]) -> None:
    with started(video, "localize", "camera:0", *asked, "--limit", 3) as process:
        printed, messages = process.communicate(timeout=30)
    assert process.returncode == 0, messages
    assert len(answers_of(printed)) == 3


def test_a_reader_that_nobody_ended_is_ended_with_the_process() -> None:
    """OpenCV's threads abort a process that does not wait for them."""
    script = (
        "import sys, threading, time\n"
        "from geodtr.runtime.prefetch import BackgroundReader\n"
        "stopped = threading.Event()\n"
        "def items():\n"
        "    yield 1\n"
        "    stopped.wait()\n"
        "    time.sleep(0.3)\n"
        "    print('released', flush=True)\n"
        "reader = BackgroundReader(items(), 'camera', stopped.set)\n"
        "reader.next()\n"
        "sys.exit(2)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "released\n"), ended.stderr


def test_a_reader_that_goes_away_ends_the_run(video: Path, asked: tuple[object, ...]) -> None:
    with started(video, "localize", "camera:0", *asked) as process:
        line_of(process)
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=30)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_camera_that_hangs_is_given_up_and_the_answers_are_kept(
    video: Path, asked: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "fixes.geojson"
    with started(video, "localize", "camera:0", *asked, "--out", out, hangs_after=5) as process:
        printed, messages = process.communicate(timeout=40)
    assert process.returncode == 2
    assert "camera:0 has given no frame for 1 s" in messages
    assert len(json.loads(out.read_bytes())["features"]) == len(answers_of(printed)) > 0


def test_odometry_and_camera_come_live(video: Path, asked: tuple[object, ...], tmp_path: Path) -> None:
    """The vehicle stands before one tile, so that the answer does not hang on how quickly the test runs."""
    out = tmp_path / "drive.gpx"
    with started(video, "localize", "camera:0", *asked, "--track", "-", "--out", out) as process:
        tell(process, f"{HEADER}\n{NOON},0,0\n")
        first = line_of(process)
        assert (first["time_s"], str(first["image"])[:8]) == (NOON, "camera:0")
        tell(process, f"{NOON + 1},0,0\n")
        while line_of(process)["time_s"] != NOON + 1:
            pass
        _, messages = process.communicate(timeout=30)  # closes standard input
    assert process.returncode == 0, messages
    check_gpx(out.read_bytes())


def test_odometry_and_camera_end_after_the_limit(video: Path, asked: tuple[object, ...]) -> None:
    with started(video, "localize", "camera:0", *asked, "--track", "-", "--limit", 3) as process:
        tell(process, f"\ufeff{HEADER}\n{NOON},0,0\n")  # as Excel writes it; the odometry itself goes on
        assert process.stdout is not None
        printed = process.stdout.read()
        process.wait(timeout=30)
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read()
    assert [answer["time_s"] for answer in answers_of(printed)] == [NOON] * 3


def test_a_camera_that_hangs_leaves_the_odometry_if_it_may(video: Path, asked: tuple[object, ...]) -> None:
    with started(video, "localize", "camera:0", *asked, "--track", "-", "--on-error", "skip", hangs_after=3) as process:
        tell(process, f"{HEADER}\n{NOON},0,0\n")
        first = line_of(process)
        for step in range(1, 40):
            tell(process, f"{NOON + step},0,0\n")
            time.sleep(0.2)
        printed, messages = process.communicate(timeout=30)
    assert process.returncode == 0, messages
    assert "given no frame" in messages
    answers = answers_of(printed)
    assert first["image"] is not None
    assert (answers[-1]["image"], answers[-1]["own_lat"], answers[-1]["time_s"]) == (None, None, NOON + 39)


def test_odometry_without_rows_for_a_while_is_an_error(video: Path, asked: tuple[object, ...]) -> None:
    with started(video, "localize", "camera:0", *asked, "--track", "-") as process:
        tell(process, f"{HEADER}\n{NOON},0,0\n")
        assert process.stderr is not None
        assert process.stdout is not None
        printed = process.stdout.read()
        process.wait(timeout=30)
        assert "standard input has given no row for 1 s" in process.stderr.read()
    assert process.returncode == 2
    assert printed


def test_rows_on_standard_input_may_name_the_images(
    tiny: TinyWorld, video: Path, asked: tuple[object, ...], tmp_path: Path
) -> None:
    with started(video, "localize", *asked, "--track", "-") as process:
        tell(process, f"{HEADER},image\n")
        for step in range(8):
            image = tiny.photograph(tmp_path / f"{step}.png", 8 * ALONG + step, heading=90)
            tell(process, f"{NOON + step},{SPACING},0,{image}\n")
            answer = line_of(process)
            assert (answer["time_s"], answer["image"]) == (NOON + step, str(image))
        assert_it_arrives(tiny, answer, 7 * SLOWLY)
        _, messages = process.communicate(timeout=30)
    assert process.returncode == 0, messages
