"""Bags and MCAP files as sources of frames: what is in them comes out, and what is wrong with them is reported."""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from bags import (
    BEGAN,
    CAMERA,
    GNSS,
    INFO,
    camera_info,
    compressed,
    header,
    image,
    message,
    nav_sat_fix,
    write_bag,
)

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.images.frames import decode_frame
from geodtr.runtime.recordings.bag import Recording

Storage = Literal["mcap", "sqlite3"]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def written(tmp_path: Path, messages: list[tuple[str, Any]], storage: Storage = "mcap", **how: Any) -> Path:
    return write_bag(tmp_path / "drive", messages, storage, **how)


@pytest.mark.parametrize(
    ("storage", "zipped"), [("mcap", None), ("mcap", "storage"), ("sqlite3", None), ("sqlite3", "message")]
)
def test_frames_come_in_order_with_the_stamps_of_their_headers(tmp_path: Path, storage: Storage, zipped: Any) -> None:
    sent = [(CAMERA, image(np.roll(PIXELS, number, axis=1), BEGAN + number / 4)) for number in range(8)]
    path = written(tmp_path, [*sent, (GNSS, nav_sat_fix(1.0, 2.0, BEGAN + 9))], storage, zipped=zipped)
    for place in (path, *path.glob("*.mcap"), *path.glob("*.db3")):
        frames = Recording(place).frames(CAMERA)
        read = list(frames.frames)
        assert (frames.count, frames.kind, frames.endless) == (8, "recording", False)
        assert [frame.time for frame in read] == [BEGAN + number / 4 for number in range(8)]
        for number, frame in enumerate(read):
            np.testing.assert_array_equal(decode_frame(frame).pixels, np.roll(PIXELS, number, axis=1))
            assert frame.name.endswith(f"#{number}")
    some = Recording(path).frames(CAMERA, every=3, limit=2)
    assert (some.count, [frame.time for frame in some.frames]) == (2, [BEGAN, BEGAN + 3 / 4])


@pytest.mark.parametrize(
    ("encoding", "stored", "seen"),
    [
        ("rgb8", PIXELS, PIXELS),
        ("bgr8", PIXELS[..., ::-1], PIXELS),
        ("rgba8", np.dstack([PIXELS, PIXELS[..., :1]]), PIXELS),
        ("bgra8", np.dstack([PIXELS[..., ::-1], PIXELS[..., :1]]), PIXELS),
        ("mono8", PIXELS[..., :1], np.repeat(PIXELS[..., :1], 3, axis=2)),
    ],
)
def test_pixels_of_every_encoding(tmp_path: Path, encoding: str, stored: Any, seen: Any) -> None:
    path = written(tmp_path, [(CAMERA, image(stored, BEGAN, encoding, padding=5))])
    (frame,) = Recording(path).frames(CAMERA).frames
    np.testing.assert_array_equal(decode_frame(frame).pixels, seen)


def test_compressed_images_are_decoded_as_files_are(tmp_path: Path) -> None:
    depth = message(
        "CompressedImage", header=header(BEGAN + 2), format="16UC1; compressedDepth", data=np.zeros(9, np.uint8)
    )
    broken = message("CompressedImage", header=header(BEGAN + 3), format="jpeg", data=np.zeros(9, np.uint8))
    sent = [compressed(PIXELS, BEGAN), compressed(PIXELS, BEGAN + 1, "jpeg"), depth, broken]
    read = list(Recording(written(tmp_path, [(CAMERA, each) for each in sent])).frames(CAMERA).frames)
    np.testing.assert_array_equal(decode_frame(read[0]).pixels, PIXELS)
    assert decode_frame(read[1]).pixels.shape == PIXELS.shape
    for frame, words in zip(read[2:], ("depth image", "not an image"), strict=True):
        with pytest.raises(ImageError, match=words):
            decode_frame(frame)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "bayer_rggb8"}, "image_proc"),
        ({"encoding": "16UC1"}, "allowed: rgb8, bgr8"),
        ({"step": 10}, "too few for 8x6"),
        ({"data": np.zeros(7, np.uint8)}, "too few for 8x6"),
        ({"width": 0}, "1 to"),
        ({"width": 100_000, "height": 100_000}, "1 to"),
    ],
)
def test_a_message_that_is_no_image_is_one_bad_frame(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    bad = image(PIXELS, BEGAN)
    for name, value in change.items():
        setattr(bad, name, value)
    read = list(Recording(written(tmp_path, [(CAMERA, bad), (CAMERA, image(PIXELS, BEGAN + 1))])).frames(CAMERA).frames)
    with pytest.raises(ImageError, match=words):
        decode_frame(read[0])
    np.testing.assert_array_equal(decode_frame(read[1]).pixels, PIXELS)


def test_a_calibration_and_a_track_are_read_from_their_topics(tmp_path: Path) -> None:
    fixes = [(GNSS, nav_sat_fix(10 + number, 179.5 + number / 10, BEGAN + number)) for number in range(3)]
    lost = (GNSS, nav_sat_fix(0, 0, BEGAN + 3, status=-1))
    late = (GNSS, nav_sat_fix(50, -179.9, BEGAN + 60))
    recording = Recording(written(tmp_path, [(INFO, camera_info(8, 6, 5.0)), *fixes, lost, late]))
    camera = recording.camera(INFO)
    assert (camera.width, camera.height, camera.matrix, camera.lens) == (8, 6, (5.0, 5.0, 4.0, 3.0), "pinhole")
    track = recording.track(GNSS)
    assert track.at(BEGAN + 1.0) == (11, 179.6)
    assert track.at(BEGAN + 0.5) == pytest.approx((10.5, 179.55))
    assert [track.at(BEGAN + seconds) for seconds in (-1, 30, 90)] == [None] * 3
    assert (track.before(BEGAN - 1), track.before(BEGAN + 30)) == (None, (12, 179.7))


def test_a_track_over_the_180th_meridian_goes_the_short_way(tmp_path: Path) -> None:
    fixes = [(GNSS, nav_sat_fix(0, lon, BEGAN + number)) for number, lon in enumerate((179.9, -179.9))]
    lat, lon = Recording(written(tmp_path, fixes)).track(GNSS).at(BEGAN + 0.25) or (0, 0)
    assert (lat, lon) == pytest.approx((0, 179.95))


def test_wrong_topics_are_answered_with_those_there_are(tmp_path: Path) -> None:
    recording = Recording(
        written(tmp_path, [(CAMERA, image(PIXELS, BEGAN)), (GNSS, nav_sat_fix(0, 0, BEGAN, status=-1))])
    )
    with pytest.raises(ConfigError, match=rf"no topic /front.*{CAMERA} \(sensor_msgs/msg/Image\), {GNSS}"):
        recording.frames("/front")
    with pytest.raises(ConfigError, match=r"NavSatFix; needed: sensor_msgs/msg/Image or"):
        recording.frames(GNSS)
    with pytest.raises(ConfigError, match="needed: sensor_msgs/msg/CameraInfo"):
        recording.camera(CAMERA)
    with pytest.raises(ConfigError, match="no position"):
        recording.track(GNSS)


def test_a_camera_that_was_not_calibrated_is_refused(tmp_path: Path) -> None:
    empty = camera_info(8, 6, 5.0)
    empty.k = np.zeros(9)
    with pytest.raises(ConfigError, match="not calibrated"):
        Recording(written(tmp_path, [(INFO, empty)])).camera(INFO)


def test_places_without_a_recording_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped" / "drive_0.db3.zstd").write_bytes(b"")
    (tmp_path / "text.mcap").write_text("no recording")
    (tmp_path / "none.mcap").write_bytes(b"")
    (tmp_path / "text.db3").write_text("no recording" * 100)
    for name, words in (
        ("nowhere", "no recording"),
        ("nowhere.mcap", "is not a file"),
        ("nowhere.db3", "is not a file"),
        ("empty", "no recording"),
        ("drive.bag", "rosbags-convert"),
        ("zipped", "zstd -d"),
        ("text.mcap", "not an MCAP file"),
        ("none.mcap", "not an MCAP file"),
        ("text.db3", "cannot be read as the SQLite"),
    ):
        with pytest.raises(DataError, match=words):
            Recording(tmp_path / name).topics  # noqa: B018 (to be read)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_breaks_off_gives_what_came_before(tmp_path: Path, share: float) -> None:
    large = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)  # chunks of 1 MB
    path = written(tmp_path, [(CAMERA, image(large, BEGAN + number)) for number in range(30)], zipped="storage")
    (file,) = path.glob("*.mcap")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    frames = list(Recording(path).frames(CAMERA).frames)
    *whole, last = frames
    assert 1 < len(whole) < 30
    assert all(isinstance(frame.image, np.ndarray) for frame in whole)
    with pytest.raises(ImageError, match="truncated or corrupt"):
        decode_frame(last)


def test_a_split_bag_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    parts = tmp_path / "split"
    parts.mkdir()
    for number in (10, 2, 0):
        part = write_bag(tmp_path / f"part{number}", [(CAMERA, image(PIXELS, BEGAN + number))], "sqlite3")
        (file,) = part.glob("*.db3")
        shutil.move(file, parts / f"split_{number}.db3")
    assert [frame.time for frame in Recording(parts).frames(CAMERA).frames] == [BEGAN, BEGAN + 2, BEGAN + 10]


def test_without_a_stamp_a_frame_has_the_time_of_its_recording(tmp_path: Path) -> None:
    (frame,) = Recording(written(tmp_path, [(CAMERA, image(PIXELS, 0))])).frames(CAMERA).frames
    assert frame.time == 1.0
