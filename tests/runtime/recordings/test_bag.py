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
    Cut,
    camera_info,
    cdr,
    compressed,
    header,
    image,
    message,
    nav_sat_fix,
    write_bag,
    write_chunks,
)

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import decode_frame
from geodtr.runtime.recordings.bag import Recording
from geodtr.runtime.recordings.receiver import Prior

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
    track = recording.track(GNSS, pytest.fail)
    assert track.at(BEGAN + 1.0) == (11, 179.6)
    assert track.at(BEGAN + 0.5) == pytest.approx((10.5, 179.55))
    assert [track.at(BEGAN + seconds) for seconds in (-1, 30, 90)] == [None] * 3
    assert (track.before(BEGAN - 1), track.before(BEGAN + 30)) == (None, (12, 179.7, 28))


def test_a_track_over_the_180th_meridian_goes_the_short_way(tmp_path: Path) -> None:
    fixes = [(GNSS, nav_sat_fix(0, lon, BEGAN + number)) for number, lon in enumerate((179.9, -179.9))]
    lat, lon = Recording(written(tmp_path, fixes)).track(GNSS, pytest.fail).at(BEGAN + 0.25) or (0, 0)
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
        recording.track(GNSS, pytest.fail)


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


def split(tmp_path: Path, parts: list[list[tuple[str, Any]]], storage: Storage = "mcap", **how: Any) -> Path:
    """A folder with a file for each of the lists of messages."""
    folder = tmp_path / "split"
    folder.mkdir()
    for number, messages in enumerate(parts):
        (file,) = write_bag(tmp_path / f"part{number}", messages, storage, **how).glob("part*.*")
        shutil.move(file, folder / f"split_{number}{file.suffix}")
    return folder


def seconds_of(recording: Recording) -> list[float | str]:
    """For each frame when it was taken, or why it cannot be read."""
    frames = recording.frames(CAMERA).frames
    return [str(each.image) if isinstance(each.image, ImageError) else (each.time or 0) - BEGAN for each in frames]


@pytest.mark.parametrize(("storage", "cut"), [("mcap", 0.5), ("mcap", 0.0), ("sqlite3", 0.5)])
def test_a_damaged_file_of_a_split_bag_costs_no_other_file_a_frame(
    tmp_path: Path, storage: Storage, cut: float
) -> None:
    large = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)  # chunks of 1 MB
    first, second = ([(CAMERA, image(large, BEGAN + at + number)) for number in range(20)] for at in (0, 20))
    folder = split(tmp_path, [first, second], storage, zipped="storage" if storage == "mcap" else None)
    (damaged,) = folder.glob("split_0.*")
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(cut * len(content))])
    seen = seconds_of(Recording(folder))
    assert [second for second in seen if second in range(20, 40)] == list(range(20, 40))
    (why,) = (each for each in seen if isinstance(each, str))
    assert str(damaged) in why
    damaged.with_name(damaged.name.replace("0", "1")).write_bytes(b"")
    if cut == 0:
        with pytest.raises(DataError, match="split_0"):
            Recording(folder)


def test_one_damaged_chunk_costs_its_own_messages(tmp_path: Path) -> None:
    """Written with checksums, as rosbag2 does not by default."""
    raws = [cdr(image(PIXELS, BEGAN + second)) for second in range(6)]
    path = write_chunks(tmp_path / "drive.mcap", [(BEGAN + second, raws[second]) for second in range(6)], 0)
    content = bytearray(path.read_bytes())
    content[content.index(raws[2]) + len(raws[2]) - 1] ^= 255
    path.write_bytes(content)
    seen = seconds_of(Recording(path))
    assert [seen[index] for index in (0, 1, 3, 4, 5)] == [0, 1, 3, 4, 5]
    assert f"the chunk with the messages from {BEGAN + 2:.3f} to {BEGAN + 2:.3f} s" in str(seen[2])


def test_frames_of_overlapping_files_and_chunks_come_in_time(tmp_path: Path) -> None:
    odd, even = ([(CAMERA, image(PIXELS, BEGAN + number)) for number in range(start, 8, 2)] for start in (1, 0))
    assert seconds_of(Recording(split(tmp_path, [odd, even]))) == list(range(8))
    raws = [(BEGAN + second, cdr(image(PIXELS, BEGAN + second))) for second in range(8)]
    pairs = [*raws[4:], raws[3], raws[0], *raws[1:3]]
    size = int(1.8 * len(raws[0][1]))
    assert seconds_of(Recording(write_chunks(tmp_path / "pairs.mcap", pairs, size))) == list(range(8))
    late = seconds_of(Recording(write_chunks(tmp_path / "bare.mcap", pairs, size, index=False)))
    assert late[:4] == [4, 5, 6, 7]
    assert all("mcap sort" in str(why) for why in late[4:])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_damaged_position_is_named_and_costs_no_other(tmp_path: Path, storage: Storage) -> None:
    fixes: list[tuple[str, Any]] = [(GNSS, nav_sat_fix(number, 10, BEGAN + number)) for number in range(6)]
    fixes[2] = (GNSS, Cut(fixes[2][1], 20))
    fixes[4][1].latitude = 1e300
    recording, bad = Recording(written(tmp_path, fixes, storage)), list[str]()
    assert list(recording.track(GNSS, bad.append).lat) == [0, 1, 3, 5]
    (why,) = bad
    assert f"{GNSS}: 2 of 6 messages state no position. The first: " in why
    assert "#2 cannot be decoded as sensor_msgs/msg/NavSatFix" in why


def test_a_track_is_read_around_a_damaged_file(tmp_path: Path) -> None:
    parts: list[list[tuple[str, Any]]] = [[(GNSS, nav_sat_fix(number, 10, BEGAN + number))] for number in range(3)]
    folder = split(tmp_path, parts)
    (folder / "split_1.mcap").write_bytes(b"")
    bad = list[str]()
    assert list(Recording(folder).track(GNSS, bad.append).lat) == [0, 2]
    assert len(bad) == 1
    assert "split_1.mcap is not an MCAP file" in bad[0]


def test_a_prior_is_as_old_as_it_may_be_and_no_older(tmp_path: Path) -> None:
    fixes = [(GNSS, nav_sat_fix(10.0, 20.0, BEGAN + second)) for second in (2, 3)]
    sent = [(CAMERA, image(PIXELS, BEGAN + second)) for second in range(9)]
    recording = Recording(written(tmp_path, [*sent, *fixes]))
    track = recording.track(GNSS, pytest.fail)
    for age, first, last in ((2.0, 2, 5), (4.5, 2, 7)):
        frames = list(recording.frames(CAMERA, prior=Prior(track, 100.0, age)).frames)
        near = [second for second, frame in enumerate(frames) if frame.near == Near(10.0, 20.0, 100.0)]
        assert near == list(range(first, last + 1))
        refused = [(second, str(frame.image)) for second, frame in enumerate(frames) if frame.near is None]
        assert all(("is known before it" if second < 2 else f"than {second - 3}.0 s") in why for second, why in refused)
        assert all("--on-error skip" in why for _, why in refused)
    for wrong in (0.0, float("nan")):
        with pytest.raises(ConfigError, match="above 0"):
            Prior(track, 100.0, wrong)


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
