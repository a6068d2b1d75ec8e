"""`localize --bag` and `--mcap`: a bag in, answers and a recording out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bags import BEGAN, CAMERA, GNSS, INFO, Cut, camera_info, drive_of, image, nav_sat_fix, write_bag
from conftest import Outcome
from mcap.reader import make_reader
from tiny_world import SPACING, TinyWorld

from geodtr.runtime.geodesy import distance

ROWS = (18, 19, 20, 21, 22)


@pytest.fixture(scope="module")
def bag(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    messages = [(INFO, camera_info(64, 16, 40.0, -0.2)), *drive_of(tiny, ROWS)]
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", messages, zipped="storage")


def asked(world: TinyWorld, bag: Path, *more: object) -> tuple[object, ...]:
    return ("localize", "--bundle", world.bundle, "--gallery", world.gallery, "--bag", bag, *more)


def test_a_bag_is_localised_compared_and_recorded(
    tiny: TinyWorld, bag: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    recorded, route = tmp_path / "answers.mcap", tmp_path / "answers.gpx"
    printed = cli(*asked(tiny, bag, "--truth-topic", GNSS, "--mcap", recorded, "--out", route, "--json"))
    assert printed.code == 0, printed.err
    answers = [json.loads(line) for line in printed.out.splitlines()]
    assert [answer["time_s"] for answer in answers] == [BEGAN + second for second in range(len(ROWS))]
    errors = [
        float(distance(answer["lat"], answer["lon"], tiny.lat[row] + 3 / 111_000, tiny.lon[row]))
        for row, answer in zip(ROWS, answers, strict=True)
    ]
    assert max(errors) < SPACING / 5
    assert [answer["gnss_off_m"] for answer in answers] == pytest.approx(errors, abs=0.01)
    assert answers[0]["recorded"]["lat"]["origin"] == GNSS
    printed_text = " ".join(printed.err.split())
    assert f"Recorded positions: {len(ROWS)} of {len(ROWS)} images; {len(ROWS)} answers are off by" in printed_text
    assert f"off by {sorted(errors)[2]:.1f} m (median)" in printed_text
    assert f"Wrote {recorded}: {len(ROWS)} answers" in printed.err
    assert "2023-11-14T22:13:20" in route.read_text()
    with recorded.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None and summary.statistics is not None
    counts = {
        channel.topic: summary.statistics.channel_message_counts[key] for key, channel in summary.channels.items()
    }
    assert {counts[topic] for topic in ("/geodtr/fix", "/geodtr/image", "/geodtr/truth", "/geodtr/answer")} == {5}


def test_a_receivers_last_position_bounds_the_search(tiny: TinyWorld, bag: Path, cli: Callable[..., Outcome]) -> None:
    printed = cli(*asked(tiny, bag, "--prior-topic", GNSS, "--prior-radius", 1.2 * SPACING, "--top", 60, "--json"))
    assert printed.code == 0, printed.err
    for row, line in zip(ROWS, printed.out.splitlines(), strict=True):
        tiles = json.loads(line)["candidates"]
        assert 3 <= len(tiles) <= 5
        for each in tiles:
            assert distance(each["lat"], each["lon"], tiny.lat[row], tiny.lon[row]) < 1.3 * SPACING


def test_a_calibration_in_the_bag_works_like_one_in_a_file(
    tiny: TinyWorld, bag: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "camera.yaml"
    k = [40, 0, 32, 0, 40, 8, 0, 0, 1]
    file.write_text(f"width: 64\nheight: 16\nk: {k}\nd: [-0.2, 0, 0, 0, 0]\ndistortion_model: plumb_bob\n")
    by_topic, by_file = (
        cli(*asked(tiny, bag, "--json", *how)) for how in (("--camera-topic", INFO), ("--undistort", file))
    )
    assert by_topic.code == 0, by_topic.err
    assert by_topic.out == by_file.out
    assert by_topic.out != cli(*asked(tiny, bag, "--json")).out


def test_a_drive_in_a_bag_is_tracked_by_odometry_of_the_same_clock(
    tiny: TinyWorld, bag: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    odometry = tmp_path / "odometry.csv"
    rows = [f"{BEGAN - 1 + step},{SPACING},0" for step in range(8)]
    odometry.write_text("\n".join(["time_unix_s,speed_m_s,yaw_rate_deg_s", *rows]))
    printed = cli(*asked(tiny, bag, "--track", odometry, "--headings", 8, "--truth-topic", GNSS, "--json"))
    assert printed.code == 0, printed.err
    assert [json.loads(line)["time_s"] for line in printed.out.splitlines()] == [BEGAN + second for second in range(5)]
    odometry.write_text("time_s,speed_m_s,yaw_rate_deg_s\n0,1,0\n1,1,0")
    assert "of the same clock" in cli(*asked(tiny, bag, "--track", odometry)).err


def test_a_bad_frame_stops_or_is_left_out(tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    bad = image(tiny.panorama(3), BEGAN, "bayer_rggb8")
    path = write_bag(tmp_path / "drive", [(CAMERA, bad), (CAMERA, image(tiny.panorama(3), BEGAN + 1))], "sqlite3")
    printed = cli(*asked(tiny, path))
    assert (printed.code, "bayer_rggb8" in printed.err, "image_proc" in printed.err) == (2, True, True)
    left = cli(*asked(tiny, path, "--on-error", "skip", "--json"))
    assert (left.code, len(left.out.splitlines()), "Left out" in left.err) == (0, 1, True)


def test_a_damaged_position_stops_or_is_left_out(tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    sent = drive_of(tiny, ROWS)
    first = next(place for place, (topic, _) in enumerate(sent) if topic == GNSS)
    sent[first] = (GNSS, Cut(sent[first][1], 20))
    path = write_bag(tmp_path / "drive", sent)
    radius = ("--prior-topic", GNSS, "--prior-radius", 1.2 * SPACING)
    stopped = cli(*asked(tiny, path, *radius))
    assert (stopped.code, stopped.out) == (2, "")
    assert f"{GNSS}: 1 of 25 messages state no position. The first: " in stopped.err
    assert "--on-error skip" in stopped.err
    left = cli(*asked(tiny, path, *radius, "--truth-topic", GNSS, "--on-error", "skip", "--json"))
    assert left.code == 0, left.err
    assert left.err.count("Left out:") == 1
    answers = [json.loads(line) for line in left.out.splitlines()]
    assert [answer["candidates"][0]["tile"] for answer in answers] == [f"{row:03}.png" for row in ROWS]


def test_frames_in_an_outage_of_the_receiver_are_bad_frames(
    tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    """The receiver falls silent 0.1 s before the third frame, and a position may be two seconds old."""
    sent = [each for each in drive_of(tiny, ROWS) if each[0] == CAMERA or each[1].header.stamp.sec < BEGAN + 2]
    path = write_bag(tmp_path / "drive", sent)
    radius = ("--prior-topic", GNSS, "--prior-radius", 1.2 * SPACING, "--json")
    stopped = cli(*asked(tiny, path, *radius))
    assert (stopped.code, len(stopped.out.splitlines())) == (2, 4)
    assert f"no position of {GNSS} is newer than 2.1 s" in stopped.err
    assert "--prior-age SECONDS" in stopped.err
    left = cli(*asked(tiny, path, *radius, "--on-error", "skip"))
    assert (left.code, len(left.out.splitlines())) == (0, 4)
    assert "Localising: 4 of 5" in left.err
    assert len(cli(*asked(tiny, path, *radius, "--prior-age", 3)).out.splitlines()) == 5


def test_a_file_that_breaks_off_is_answered_up_to_there(
    tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)  # a chunk each
    path = write_bag(tmp_path / "drive", [(CAMERA, image(pixels, BEGAN + second)) for second in range(5)])
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: int(0.7 * file.stat().st_size)])
    out = tmp_path / "answers.jsonl"
    stopped = cli(*asked(tiny, file, "--json", "--out", out))
    assert stopped.code == 2
    assert len(stopped.out.splitlines()) == len(out.read_text().splitlines()) == 3
    assert "truncated or corrupt" in stopped.err
    assert "of 5" not in stopped.err


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".geojson", ".html", ".mcap"])
def test_without_an_answer_there_is_no_file(
    tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path, ending: str
) -> None:
    bad = image(tiny.panorama(3), BEGAN, "bayer_rggb8")
    path = write_bag(tmp_path / "drive", [(CAMERA, bad)])
    out = tmp_path / f"answers{ending}"
    option = "--mcap" if ending == ".mcap" else "--out"
    assert cli(*asked(tiny, path, option, out)).code == 2
    left = cli(*asked(tiny, path, option, out, "--on-error", "skip"))
    assert (left.code, f"{out} is not written: there is no answer for it." in left.err) == (0, True)
    assert "Localising: 0 of 1" in left.err
    assert [each.name for each in tmp_path.iterdir()] == ["drive"]


def test_wrong_uses_are_answered_in_words(
    tiny: TinyWorld, bag: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    street = tiny.photograph(tmp_path / "street.png", 3)
    taken = tmp_path / "taken.mcap"
    taken.write_bytes(b"")
    assert f"has no topic /front. It has {INFO}" in refused(*asked(tiny, bag, "--topic", "/front"))
    assert "needed: sensor_msgs/msg/Image" in refused(*asked(tiny, bag, "--topic", GNSS))
    assert "--bag and IMAGES do not go together" in refused(*asked(tiny, bag, street))
    near = ("--prior-topic", GNSS, "--near", "-30,-15,500")
    assert "--prior-topic and --near do not go together" in refused(*asked(tiny, bag, *near))
    assert "give --prior-topic as well" in refused(*asked(tiny, bag, "--prior-radius", 5))
    assert "give --prior-topic as well" in refused(*asked(tiny, bag, "--prior-age", 5))
    for option in ("--prior-radius", "--prior-age"):
        assert "must be above 0" in refused(*asked(tiny, bag, "--prior-topic", GNSS, option, 0))
    assert "--video-start needs a video" in refused(*asked(tiny, bag, "--track", "-", "--video-start", 1))
    assert "exists" in refused(*asked(tiny, bag, "--mcap", taken))
    assert ".mcap" in refused(*asked(tiny, bag, "--mcap", tmp_path / "answers.bag"))
    nadir = ("--view", "nadir", "--altitude", 80, "--fov", 70, "--camera-topic", INFO)
    assert "--camera-topic and --fov do not go together" in refused(*asked(tiny, bag, *nadir))
    assert "is no recording" in refused(*asked(tiny, tiny.gallery))
    assert "give --bag FILE" in refused(*asked(tiny, bag)[:5], street, "--topic", CAMERA)
    several = [(CAMERA, image(tiny.panorama(3), BEGAN)), ("/rear", image(tiny.panorama(3), BEGAN))]
    path = write_bag(tmp_path / "several", several)
    assert f"--topic {CAMERA} or /rear" in refused(*asked(tiny, path))
    path = write_bag(tmp_path / "none", [(GNSS, nav_sat_fix(0, 0, BEGAN))])
    assert f"no topic of type Image or CompressedImage. It has {GNSS}" in refused(*asked(tiny, path))


def test_images_are_recorded_too(tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    streets = [tiny.photograph(tmp_path / f"{row}.png", row) for row in (1, 2)]
    path = tmp_path / "answers.mcap"
    printed = cli(*asked(tiny, path)[:5], *streets, "--mcap", path)
    assert printed.code == 0, printed.err
    with path.open("rb") as stream:
        topics = [channel.topic for _, channel, _ in make_reader(stream).iter_messages()]
    assert topics.count("/geodtr/image") == 2


def test_frames_of_random_sizes_are_read_by_every(tiny: TinyWorld, cli: Callable[..., Outcome], bag: Path) -> None:
    printed = cli(*asked(tiny, bag, "--every", 2, "--limit", 2, "--json"))
    times = [json.loads(line)["time_s"] for line in printed.out.splitlines()]
    assert np.array_equal(times, [BEGAN, BEGAN + 2])
