"""What is recorded of frames and photographs is used where it is asked for, and stands beside the answers."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Outcome
from flight_files import HEADING, airdata, bracketed, srt
from PIL import Image
from tiny_world import CENTRE, SPACING, TinyWorld
from xmp_photo import packet, write_photo

from geodtr import Localizer
from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.geodesy import Near, moved
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.images.recorded import Recorded, Stated
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions

FRAMES, RATE = 8, 1.0
ROW = 32
"""The first tile of the row that the drone flies along, eastwards, a tile a frame."""


@pytest.fixture(scope="module")
def video(tiny: TinyWorld) -> Path:
    """Beside it, a record by which the drone flew 10 m south of where it did."""
    path = tiny.bundle.parent / "DJI_0001.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), RATE, (64, 16))
    for column in range(FRAMES):
        writer.write(tiny.panorama(ROW + column, heading=HEADING)[..., ::-1].copy())
    writer.release()
    south = np.full(FRAMES, -10.0)
    lat, lon = moved(tiny.lat[ROW : ROW + FRAMES], tiny.lon[ROW : ROW + FRAMES], np.zeros(FRAMES), south)
    at = list(zip(lat.tolist(), lon.tolist(), strict=True))
    at[6] = (0.0, 0.0)
    text = srt(bracketed, at=at, seconds=1 / RATE).replace("gb_pitch: -90.0", "gb_pitch: -10.0")
    path.with_suffix(".SRT").write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def asked(tiny: TinyWorld, video: Path) -> tuple[object, ...]:
    return ("localize", video, "--bundle", tiny.bundle, "--gallery", tiny.gallery)


def answers_of(outcome: Outcome) -> list[dict[str, object]]:
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_answers_stand_beside_recorded_positions(
    asked: tuple[object, ...], video: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    record = video.with_suffix(".SRT")
    out, html = tmp_path / "fixes.jsonl", tmp_path / "fixes.html"
    outcome = cli(*asked, "--flight", record, "--json", "--out", out)
    answers = answers_of(outcome)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    known = [row for row in rows if row["gnss_lat"] is not None]
    assert len(known) == 7
    assert all(abs(row["gnss_off_m"] - 10) < 5 for row in known)
    assert "Recorded positions: 7 of 8 images; 7 answers are off by" in " ".join(outcome.err.split())
    recorded = answers[0]["recorded"]
    assert isinstance(recorded, dict)
    assert recorded["height"] == {"value": 60.0, "origin": "SRT rel_alt"}
    assert recorded["tilt"]["value"] == pytest.approx(80)
    assert answers[6]["recorded"]["lat"] is None  # type: ignore[index]
    cli(*asked, "--flight", record, "--out", html)
    assert '"gnss_x"' in html.read_text()


def test_a_radius_about_recorded_positions_is_a_prior(
    asked: tuple[object, ...], video: Path, cli: Callable[..., Outcome]
) -> None:
    """Only one tile lies within 30 m. The seventh frame has no recorded position."""
    prior = (*asked, "--flight", video.with_suffix(".SRT"), "--near", "flight,30", "--json")
    stopped = cli(*prior)
    assert (stopped.code, len(stopped.out.splitlines())) == (2, 6)
    assert f"{video}#6: no position is recorded of it" in stopped.err
    left = cli(*prior, "--on-error", "skip")
    answers = answers_of(left)
    assert left.err.count("Left out:") == 1
    assert [len(answer["candidates"]) for answer in answers] == [1] * 7  # type: ignore[arg-type]
    assert "has no calibration for a prior of 30 m" in str(answers[0]["uncalibrated"])


def test_a_record_beside_the_video_is_mentioned(asked: tuple[object, ...], cli: Callable[..., Outcome]) -> None:
    assert "--flight" in cli(*asked, "--limit", 1).err


def test_a_table_needs_the_video_s_start(
    asked: tuple[object, ...], cli: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path
) -> None:
    table = tmp_path / "flight.csv"
    table.write_text(airdata(30, range(0)), encoding="utf-8")
    assert "--flight-start SECONDS" in refused(*asked, "--flight", table)
    answers = answers_of(cli(*asked, "--flight", table, "--flight-start", 1, "--json"))
    assert answers[0]["recorded"]["lat"]["origin"] == "latitude"  # type: ignore[index]


def test_faults_of_a_record_stop_or_are_left_out(
    asked: tuple[object, ...], cli: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path
) -> None:
    table = tmp_path / "flight.csv"
    table.write_text(airdata()[:-40], encoding="utf-8")
    assert "To leave such entries out: --on-error skip" in refused(*asked, "--flight", table)
    outcome = cli(*asked, "--flight", table, "--on-error", "skip")
    assert outcome.code == 0
    assert "line 31: 4 values" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--flight-start", 3), "give --flight as well"),
        (("--near", "flight,30"), "give --flight as well"),
        (("--near", "flight,x", "--flight", "a.srt"), "for example flight,500"),
        (("--near", "flight,-5", "--flight", "a.srt"), "must be above 0"),
        (("--track", "flight"), "takes the motion of a flight record: give --flight as well"),
        (("--track", "flight", "--flight", "a.srt", "--video-start", 1), "aligned by --flight-start"),
        (("--flight", "nowhere.srt"), "nowhere.srt cannot be read"),
        (("--flight", "a.kml"), "allowed: .srt, .csv"),
        (("--flight", "exif"), "takes the tags of photographs"),
        (("--flight", "nowhere.csv", "--flight-start", "nan"), "a finite number"),
    ],
)
def test_options_that_do_not_go_together(
    asked: tuple[object, ...], refused: Callable[..., str], more: tuple[object, ...], message: str
) -> None:
    assert message in refused(*asked, *more)


def test_photographs_have_tags_of_their_own(tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    lat, lon = float(tiny.lat[5]), float(tiny.lon[5])
    dji = {"GpsLatitude": lat, "GpsLongitude": lon, "RelativeAltitude": "+25.0"}
    photo = write_photo(tmp_path / "a.jpg", tiny.panorama(5), packet(dji=dji))
    command = ("localize", photo, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json")
    (answer,) = answers_of(cli(*command, "--flight", "exif", "--near", "flight,30"))
    assert [candidate["tile"] for candidate in answer["candidates"]] == ["005.png"]  # type: ignore[attr-defined]
    assert answer["recorded"]["height"]["origin"] == "XMP RelativeAltitude"  # type: ignore[index]
    bare = tiny.photograph(tmp_path / "bare.png", 5)
    stopped = cli(*command[:1], bare, *command[2:], "--flight", "exif", "--near", "flight,30")
    assert (stopped.code, f"{bare}: no position is recorded of it" in stopped.err) == (2, True)


@pytest.fixture(scope="module")
def overhead(tiny: TinyWorld) -> Iterator[Localizer]:
    with Localizer.open(tiny.bundle, tiny.gallery, nadir=NadirOptions(tile_metres=SPACING, rotations=8)) as localizer:
        yield localizer


def nadir_frame(tiny: TinyWorld, turn: int, recorded: Recorded) -> Frame:
    """Tile 9 from 50 m, as an image whose upper edge points `turn` quarter turns from north."""
    pixels = np.rot90(np.asarray(Image.fromarray(tiny.tiles[9]).resize((128, 128))), turn)
    return Frame("a.mp4#3", np.ascontiguousarray(pixels), altitude=50.0, recorded=recorded)


RECORDED = Recorded(
    "a.mp4#3",
    heading=Stated(90.0, "SRT gb_yaw"),
    tilt=Stated(3.0, "SRT gb_pitch"),
    field_of_view=Stated(2 * math.degrees(math.atan(0.5)), "SRT focal_len"),
)


def test_a_nadir_frame_is_searched_by_its_own_heading_and_field_of_view(tiny: TinyWorld, overhead: Localizer) -> None:
    answer = overhead.locate(nadir_frame(tiny, 1, RECORDED))
    assert answer.candidates[0].place.id == "009.png"
    assert answer.heading == 90.0
    wrong = overhead.locate(nadir_frame(tiny, 1, replace(RECORDED, heading=Stated(180.0, "SRT gb_yaw"))))
    assert wrong.candidates[0].score < answer.candidates[0].score - 0.1
    with pytest.raises(ImageError, match=r"a\.mp4#3: how much ground it shows is not known"):
        overhead.locate(nadir_frame(tiny, 1, replace(RECORDED, field_of_view=None)))


def test_a_frame_that_was_tilted_is_no_nadir_frame(tiny: TinyWorld, overhead: Localizer) -> None:
    with pytest.raises(ImageError, match=r"a\.mp4#3: its camera was tilted by 65° from straight down \(SRT G\.PRY\)"):
        overhead.locate(nadir_frame(tiny, 0, replace(RECORDED, tilt=Stated(65.0, "SRT G.PRY"))))


def test_a_height_below_take_off_is_no_altitude(tiny: TinyWorld, overhead: Localizer) -> None:
    low = replace(RECORDED, height=Stated(-12.3, "XMP RelativeAltitude"))
    frame = nadir_frame(tiny, 1, low)
    with pytest.raises(ImageError, match=r"a\.mp4#3: its height is -12\.3 m \(XMP RelativeAltitude\)"):
        overhead.locate(replace(frame, altitude=None))
    assert overhead.locate(frame).candidates[0].place.id == "009.png"


def test_a_panorama_is_aligned_by_its_recorded_heading(tiny: TinyWorld) -> None:
    frame = Frame("a", tiny.panorama(7, heading=120.0), recorded=Recorded("a", heading=Stated(120.0, "GIMBAL.yaw")))
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        answer = localizer.locate(frame)
        assert (answer.candidates[0].place.id, answer.heading) == ("007.png", 120.0)
        assert answer.candidates[0].score > localizer.locate(replace(frame, recorded=None)).candidates[0].score


def test_frames_of_a_batch_may_have_priors_of_their_own(tiny: TinyWorld) -> None:
    places = [(float(lat), float(lon)) for lat, lon in zip(tiny.lat, tiny.lon, strict=True)]
    frames = [Frame(f"#{row}", tiny.panorama(row)) for row in (3, 4, 5)]
    frames[1] = replace(frames[1], near=Near(*places[60], 20.0))
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        answers = list(localizer.locate_frames(frames, near=Near(*CENTRE, 5000.0)))
        assert [answer.candidates[0].place.id for answer in answers] == ["003.png", "060.png", "005.png"]
        assert answers[1] == localizer.locate(frames[1])


def test_a_record_s_place_in_a_track(tiny: TinyWorld, video: Path, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    drive = tmp_path / "drive.csv"
    drive.write_text("time_s,speed_m_s,yaw_deg\n" + "".join(f"{step},50,90\n" for step in range(9)))
    out = tmp_path / "track.csv"
    command = ("localize", video, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--track", drive)
    assert cli(*command, "--flight", video.with_suffix(".SRT"), "--out", out).code == 0
    header, *rows = out.read_text().splitlines()
    column = header.split(",").index("gnss_lat")
    assert sum(bool(row.split(",")[column]) for row in rows) == 7


def test_a_track_of_nadir_frames_goes_by_the_record_s_motion(
    tiny: TinyWorld, cli: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path
) -> None:
    """East along a row of tiles, one a second, with the upper edge to the north."""
    video, record, out = tmp_path / "down.mkv", tmp_path / "down.SRT", tmp_path / "track.jsonl"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"FFV1"), RATE, (64, 64))
    for row in range(ROW, ROW + FRAMES):
        writer.write(np.asarray(Image.fromarray(tiny.tiles[row]).resize((64, 64)))[..., ::-1].copy())
    writer.release()
    at = list(zip(tiny.lat[ROW : ROW + FRAMES].tolist(), tiny.lon[ROW : ROW + FRAMES].tolist(), strict=True))
    text = srt(bracketed, at=at, seconds=1 / RATE).replace(f"gb_yaw: {HEADING - 360:.1f}", "gb_yaw: 0.0")
    record.write_text(text, encoding="utf-8")
    command = ("localize", video, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--view", "nadir")
    size = ("--frame-metres", f"{SPACING},{SPACING * 1.01}", "--tile-metres", SPACING)
    flown = ("--flight", record, "--track", "flight")
    outcome = cli(*command, *size, *flown, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "motion by positions (100%)" in outcome.err
    points = [json.loads(line) for line in out.read_text().splitlines()]
    assert [point["time_s"] for point in points] == [float(second) for second in range(FRAMES)]
    assert points[-1]["gnss_off_m"] < SPACING
    record.write_text(srt(bracketed, at=[(0.0, 0.0)] * FRAMES, seconds=1 / RATE), encoding="utf-8")
    assert f"{record} states no motion" in " ".join(refused(*command, *size, *flown).split())


def test_options_state_their_bounds() -> None:
    with pytest.raises(ConfigError):
        NadirOptions().of(replace(RECORDED, field_of_view=Stated(0.0, "SRT focal_len")))
