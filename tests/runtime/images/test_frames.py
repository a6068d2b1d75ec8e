"""Images from folders, lists, videos and cameras; a truncated source is reported at the position of the fault."""

import re
import socket
import sys
import time
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_gallery import pixels_of
from videos import FRAMES, RATE, write_video

from geodtr.runtime.errors import ConfigError, DataError, ImageError, MissingDependency
from geodtr.runtime.images import camera
from geodtr.runtime.images.frames import Frame, as_frames, open_frames
from geodtr.runtime.installation import install_hint
from geodtr.runtime.spec import Images


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(path.name)).save(path)
    return path


def seen(*places: object, every: int = 1, limit: int | None = None) -> list[Frame]:
    return list(open_frames([str(place) for place in places], every=every, limit=limit).frames)


def pixels(frame: Frame) -> Images:
    assert isinstance(frame.image, np.ndarray), frame
    return frame.image


def test_images_folders_and_lists_come_in_the_order_given(tmp_path: Path) -> None:
    write_image(tmp_path / "b.png")
    for name in ("2.png", "1.png"):
        write_image(tmp_path / "folder" / name)
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "some.txt"
    listed.write_text("../b.png\n\n  ../folder\r\n/somewhere/else.jpg\n", encoding="utf-8-sig")
    opened = open_frames([str(tmp_path / "b.png"), str(tmp_path / "folder"), f"@{listed}"])
    assert (opened.count, opened.kind, opened.endless) == (7, "images", False)
    names = [Path(frame.name).name for frame in opened.frames]
    assert names == ["b.png", "1.png", "2.png", "b.png", "1.png", "2.png", "else.jpg"]


def test_paths_may_be_text(tmp_path: Path) -> None:
    frames = list(as_frames(["a.png", tmp_path / "b.png"]))
    assert [(frame.name, frame.image) for frame in frames] == [
        ("a.png", Path("a.png")),
        (str(tmp_path / "b.png"), tmp_path / "b.png"),
    ]


@pytest.mark.parametrize(
    ("content", "named"), [(b"", "lists nothing"), (b"\n \n", "lists nothing"), (b"\xff", "UTF-8")]
)
def test_an_empty_list_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"list\.txt.*{named}"):
        seen(f"@{tmp_path / 'list.txt'}")


def test_a_list_that_names_an_empty_folder_is_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "list.txt").write_text("none\n")
    with pytest.raises(ImageError, match=r"list\.txt lists a folder: .*none holds no images"):
        seen(f"@{tmp_path / 'list.txt'}")


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt cannot be read.*behind the @"):
        seen(f"@{tmp_path / 'gone.txt'}")


def test_a_line_of_a_list_ends_where_a_file_s_line_does(tmp_path: Path) -> None:
    """A name may hold what Unicode calls a line's end."""
    (tmp_path / "list.txt").write_bytes("a\u2028b.png\r\nc\x0bd.png\re.png".encode())
    frames = open_frames([f"@{tmp_path / 'list.txt'}"]).frames
    assert [Path(frame.name).name for frame in frames] == ["a\u2028b.png", "c\x0bd.png", "e.png"]


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no images"):
        seen(tmp_path)


@pytest.mark.parametrize(("suffix", "fourcc"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "FFV1")])
def test_a_video_gives_its_frames_in_rgb_with_their_names_and_times(tmp_path: Path, suffix: str, fourcc: str) -> None:
    video = write_video(tmp_path / f"drive{suffix}", fourcc)
    frames = seen(video)
    assert [frame.name for frame in frames] == [f"{video}#{number}" for number in range(FRAMES)]
    assert [frame.time for frame in frames] == pytest.approx([number / RATE for number in range(FRAMES)], abs=0.002)
    for number, frame in enumerate(frames):
        np.testing.assert_allclose(pixels(frame)[24, 32], (8 * number, 0, 255), atol=6)


def test_every_nth_frame_is_taken_up_to_the_limit(tmp_path: Path) -> None:
    video = write_video(tmp_path / "drive.avi")
    image = write_image(tmp_path / "b.png")
    frames = seen(video, image, every=7)
    assert [frame.name for frame in frames] == [f"{video}#{number}" for number in (0, 7, 14, 21, 28)] + [str(image)]
    assert [frame.name for frame in seen(image, video, every=7, limit=3)] == [str(image), f"{video}#0", f"{video}#7"]
    assert open_frames([str(image)] * 5, limit=3).count == 3
    assert open_frames([str(video)]).count is None
    assert [open_frames([str(video)] * count).kind for count in (1, 2)] == ["video", "images"]


@pytest.mark.parametrize(("suffix", "fourcc"), [(".avi", "MJPG"), (".mkv", "FFV1")])
def test_a_truncated_video_is_reported_after_its_last_frame(tmp_path: Path, suffix: str, fourcc: str) -> None:
    video = write_video(tmp_path / f"drive{suffix}", fourcc)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    *frames, last = seen(video)
    assert 2 < len(frames) < FRAMES - 2
    assert isinstance(last.image, ImageError)
    assert f"{video} breaks off after {len(frames)} of {FRAMES} frames" in str(last.image)
    assert last.name == f"{video}#{len(frames)}"


def test_a_video_of_larger_frames_than_the_limit_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "drive.avi")
    monkeypatch.setattr("geodtr.runtime.images.video.MAX_PIXELS", 64 * 48 - 1)
    (frame,) = seen(video)
    assert isinstance(frame.image, ImageError)
    assert f"{video} has frames of 64x48; at most 3,071 pixels" in str(frame.image)


@pytest.mark.parametrize("content", [None, b"", b"not a video", b"RIFF\0\0\0\0AVI LIST"])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes | None) -> None:
    video = tmp_path / "drive.avi"
    if content is not None:
        video.write_bytes(content)
    (frame,) = seen(video)
    assert isinstance(frame.image, ImageError)
    assert "drive.avi" in str(frame.image)


@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=40))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_video_with_flipped_bytes_gives_frames_or_a_named_error(tmp_path: Path, at: float, junk: bytes) -> None:
    video = tmp_path / "drive.avi"
    if not (tmp_path / "intact.avi").is_file():
        write_video(tmp_path / "intact.avi")
    content = bytearray((tmp_path / "intact.avi").read_bytes())
    start = int(at * (len(content) - len(junk)))
    content[start : start + len(junk)] = junk
    video.write_bytes(content)
    frames = seen(video, limit=2 * FRAMES)
    assert frames
    for frame in frames:
        assert isinstance(frame.image, ImageError) or (pixels(frame).dtype == np.uint8 and pixels(frame).ndim == 3)


class PlayedCamera:
    """A video that replaces a camera, at the camera's frame rate; from frame `hangs` on it gives no frame."""

    def __init__(self, video: Path, hangs: int | None = None) -> None:
        self._capture, self._hangs, self._given = _CAPTURE(str(video)), hangs, 0

    def isOpened(self) -> bool:  # noqa: N802
        return self._capture.isOpened()

    def grab(self) -> bool:
        time.sleep(3600 if self._given == self._hangs else 0.02)
        self._given += 1
        return self._capture.grab()

    def retrieve(self) -> tuple[bool, object]:
        return self._capture.retrieve()

    def release(self) -> None:
        self._capture.release()


_CAPTURE = cv2.VideoCapture


def test_a_camera_gives_frames_until_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "drive.avi")
    opened = list[object]()

    def played(index: int) -> PlayedCamera:
        opened.append(index)
        return PlayedCamera(video)

    monkeypatch.setattr(cv2, "VideoCapture", played)
    source = open_frames(["camera:2"])
    assert (source.kind, source.endless) == ("camera", True)
    assert not open_frames(["camera:2"], limit=5).endless
    *frames, last = seen("camera:2", every=5)
    assert opened == [2]
    assert [frame.name for frame in frames] == [f"camera:2#{number}" for number in range(0, FRAMES, 5)]
    times = [frame.time or 0.0 for frame in frames]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 5
    assert isinstance(last.image, ImageError)
    assert "camera:2 stopped after 30 frames" in str(last.image)


def test_a_camera_gives_its_newest_frame_and_skips_missed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "drive.avi")
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: PlayedCamera(video))
    frames = open_frames(["camera:0"]).frames
    first = next(frames)
    time.sleep(0.2)
    second = next(frames)
    assert first.name == "camera:0#0"
    assert int(second.name.partition("#")[2]) > 4
    assert second.time is not None
    assert time.time() - second.time < 0.1


def test_a_camera_without_frames_is_an_error_after_a_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "drive.avi")
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: PlayedCamera(video, hangs=3))
    monkeypatch.setattr(camera, "PATIENCE", 0.3)
    *frames, last = seen("camera:0")
    assert len(frames) == 3
    assert isinstance(last.image, ImageError)
    assert "camera:0 has given no frame for 0.3 s" in str(last.image)


def test_a_camera_excludes_other_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="camera:0 is not the only source"):
        seen(write_image(tmp_path / "a.png"), "camera:0")


def test_a_missing_camera_is_named() -> None:
    (frame,) = seen("camera:97")
    assert isinstance(frame.image, ImageError)
    assert "camera:97 cannot be opened" in str(frame.image)


def test_an_address_and_a_pipeline_keep_their_slashes(tmp_path: Path) -> None:
    named = "rtsp://127.0.0.1:1/stream/1"
    (frame,) = seen(named)
    assert isinstance(frame.image, ImageError)
    assert f"{named} cannot be opened" in str(frame.image)
    (frame,) = seen("rtsp://pilot:secret@127.0.0.1:1/x")
    assert "secret" not in frame.name + str(frame.image)
    with pytest.raises(DataError, match=r"some\.txt lists rtsp://127"):
        (tmp_path / "some.txt").write_text(named + "\n")
        seen(f"@{tmp_path / 'some.txt'}")


def test_an_opencv_of_another_numpy_is_named_and_not_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Debian's, Ubuntu's and JetPack's, which have GStreamer, beside NumPy 2: pip's OpenCV would not help."""
    (tmp_path / "cv2.py").write_text(
        "import sys\nsys.stderr.write('A module that was compiled using NumPy 1.x cannot be run in NumPy 2')\n"
        "raise ImportError('numpy.core.multiarray failed to import')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2")
    with pytest.raises(MissingDependency, match=r"built for NumPy 1: .*install 'numpy<2'"):
        seen("camera:0")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("http://me:secret@127.0.0.1/a.mjpg", "http://127.0.0.1/a.mjpg is an address of another kind than rtsp://"),
        ("videotestsrc ! appsink", "write 'gst:videotestsrc ! appsink'"),
    ],
)
def test_other_addresses_and_bare_pipelines_come_with_a_hint(place: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        open_frames([place])
    assert hint in str(refusal.value)


def test_a_pipeline_needs_an_opencv_with_gstreamer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = "nvarguscamerasrc ! video/x-raw(memory:NVMM), width=1280 ! nvvidconv ! appsink"
    monkeypatch.setattr(camera, "has_gstreamer", lambda: False)
    with pytest.raises(MissingDependency, match=r"built with GStreamer.*apt-get install python3-opencv"):
        seen(f"gst:{pipeline}")
    video, opened = write_video(tmp_path / "drive.avi"), list[tuple[object, ...]]()

    def played(*source: object) -> PlayedCamera:
        opened.append(source)
        return PlayedCamera(video)

    monkeypatch.setattr(camera, "has_gstreamer", lambda: True)
    monkeypatch.setattr(cv2, "VideoCapture", played)
    assert open_frames([f"gst:{pipeline}"]).kind == "camera"
    assert seen(f"gst:{pipeline}", limit=1)[0].name == "gst:nvarguscamerasrc#0"
    assert opened == [(pipeline, cv2.CAP_GSTREAMER)]


def test_frames_that_arrive_by_udp_are_a_cameras(tmp_path: Path) -> None:
    content = write_video(tmp_path / "drive.ts", "mp4v").read_bytes()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stopped = Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not stopped.is_set():
                for start in range(0, len(content), 1316):
                    out.sendto(content[start : start + 1316], ("127.0.0.1", port))
                    time.sleep(0.005)

    sender = Thread(target=send, daemon=True)
    sender.start()
    try:
        first, second = seen(f"udp://127.0.0.1:{port}", limit=2)
    finally:
        stopped.set()
        sender.join()
    assert first.name.startswith(f"udp://127.0.0.1:{port}#")
    assert pixels(second).ndim == 3


def test_without_opencv_a_video_names_the_extra_and_images_need_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependency, match=re.escape(install_hint("video"))):
        seen(tmp_path / "drive.mp4")
    with pytest.raises(MissingDependency, match=re.escape(install_hint("video"))):
        seen("camera:0")
    assert len(seen(write_image(tmp_path / "a.png"))) == 1
