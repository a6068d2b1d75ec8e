"""Localising in a few lines, on the command line and in threads; every answer states its uncertainty."""

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image
from tiny_world import CENTRE, SPACING, TinyWorld, make_world, state_imagery, write_drive

from geodtr import Localizer, open_gallery
from geodtr.runtime.errors import ConfigError, GalleryError, ImageError
from geodtr.runtime.geodesy import Near, distance
from geodtr.runtime.localization import claims
from geodtr.runtime.localization.calibration import FILE_NAME, places_sha256, read_calibration
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.spec import Imagery
from geodtr.training.data.readers.pairs_csv import write_pairs


@pytest.fixture
def copied(tiny: TinyWorld, tmp_path: Path) -> TinyWorld:
    """A gallery that a test may write into."""
    gallery = shutil.copytree(tiny.gallery, tmp_path / "gallery")
    return TinyWorld(tiny.bundle, gallery, tiny.tiles, tiny.lat, tiny.lon)


def test_three_lines_localise_a_file_or_a_cameras_pixels(tiny: TinyWorld, tmp_path: Path) -> None:
    localizer = Localizer.open(tiny.bundle, tiny.gallery)
    image = tiny.photograph(tmp_path / "street.png", 27)
    located = localizer.locate(image)
    assert located.fix is not None
    assert distance(located.fix.lat, located.fix.lon, tiny.lat[27], tiny.lon[27]) < SPACING / 2
    assert located.candidates[0].row == 27
    assert len(located.candidates) == 5
    pixels = localizer.locate(np.asarray(Image.open(image)))
    assert (pixels.image, pixels.candidates, pixels.fix) == (None, located.candidates, located.fix)


def test_files_are_localised_in_order_as_one_by_one(tiny: TinyWorld, tmp_path: Path) -> None:
    localizer = Localizer.open(tiny.bundle, tiny.gallery)
    images = [tiny.photograph(tmp_path / f"{row}.png", row) for row in (5, 1, 63, 30)]
    located = list(localizer.locate_frames(images, top=3))
    assert [entry.image for entry in located] == [str(image) for image in images]
    assert list(localizer.locate_frames(map(str, images), top=3)) == located
    for entry, image in zip(located, images, strict=True):
        alone = localizer.locate(image, top=3)
        assert [candidate.row for candidate in entry.candidates] == [candidate.row for candidate in alone.candidates]


def test_threads_get_the_answers_of_a_single_thread(tiny: TinyWorld) -> None:
    localizer = Localizer.open(tiny.bundle, tiny.gallery, headings=8)
    views = [tiny.panorama(row, heading=45.0 * (row % 8)) for row in range(40)]
    alone = [localizer.locate(view) for view in views]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(localizer.locate, views)) == alone


@pytest.mark.parametrize("heading", [0, 45, 90, 180, 292.5])
def test_an_unknown_heading_is_found(tiny: TinyWorld, heading: float) -> None:
    localizer = Localizer.open(tiny.bundle, tiny.gallery, headings=16)
    located = localizer.locate(tiny.panorama(20, heading))
    assert located.candidates[0].row == 20
    assert located.heading == pytest.approx(heading)
    assert located.candidates[0].heading == located.heading


def test_an_image_without_a_full_rotation_is_not_rotated(tiny: TinyWorld) -> None:
    localizer = Localizer.open(tiny.bundle, tiny.gallery, headings=16)
    located = localizer.locate(tiny.panorama(20)[:, :24])
    assert located.heading is None
    assert located.uncalibrated is not None
    assert "full turn" in located.uncalibrated or "calibration" in located.uncalibrated


def test_a_prior_leaves_only_tiles_within_it(tiny: TinyWorld) -> None:
    localizer = Localizer.open(tiny.bundle, tiny.gallery)
    near = Near(float(tiny.lat[0]), float(tiny.lon[0]), 1.5 * SPACING)
    located = localizer.locate(tiny.panorama(27), top=50, near=near)
    assert sorted(candidate.row for candidate in located.candidates) == [0, 1, 8, 9]
    nowhere = localizer.locate(tiny.panorama(27), near=Near(0, 0, 1000))
    assert (nowhere.candidates, nowhere.fix) == ((), None)


def test_more_tiles_than_the_gallery_holds_returns_all(tiny: TinyWorld) -> None:
    located = Localizer.open(tiny.bundle, tiny.gallery).locate(tiny.panorama(3), top=1000)
    assert len(located.candidates) == 64


def test_tiles_without_positions_are_found_without_a_fix(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    tiny = make_world(tmp_path, 3, positioned=False)
    localizer = Localizer.open(tiny.bundle, tiny.gallery)
    located = localizer.locate(tiny.panorama(4))
    assert located.candidates[0].row == 4
    assert located.fix is None
    assert "position" in (located.uncalibrated or "")
    with pytest.raises(GalleryError, match="knows no positions"):
        localizer.locate(tiny.panorama(4), near=Near(0, 0, 10))
    image = tiny.photograph(tmp_path / "street.png", 4, heading=90)
    printed = cli("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--headings", 16)
    assert printed.code == 0
    assert "no position, heading 90°: no tile found has a position" in printed.out
    assert "gallery calibrate" not in printed.err


def test_a_prior_without_tiles_is_reported(tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    image = tiny.photograph(tmp_path / "street.png", 4)
    command = ("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--near", "0,0,1000")
    printed = cli(*command)
    assert "no position: no tile lies within the prior" in printed.out
    assert "cosine" not in printed.out, "a table without rows"
    assert "LAT,LON,RADIUS" in printed.err
    assert json.loads(cli(*command, "--json").out)["uncalibrated"] == "no tile lies within the prior"


def test_a_picture_of_tiles_without_positions_is_refused_before_any_work(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    tiny = make_world(tmp_path, 3, positioned=False)
    pytest.importorskip("matplotlib")
    image, out, picture = tiny.photograph(tmp_path / "street.png", 4), tmp_path / "out.jsonl", tmp_path / "out.png"
    command = ("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery)
    assert "knows no positions, and --picture needs some" in refused(*command, "--out", out, "--picture", picture)


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_pixels_of_another_kind_are_refused(tiny: TinyWorld, pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match="uint8 RGB"):
        Localizer.open(tiny.bundle, tiny.gallery).locate(pixels)


def test_more_headings_than_columns_are_refused(tiny: TinyWorld) -> None:
    with pytest.raises(ConfigError, match="1 to 64"):
        Localizer.open(tiny.bundle, tiny.gallery, headings=65)


def test_without_a_calibration_a_fix_has_no_radius(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    image = tiny.photograph(tmp_path / "street.png", 27)
    command = ("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery)
    printed = cli(*command)
    assert "uncalibrated" in printed.out
    assert "gallery calibrate" in printed.err
    answer = json.loads(cli(*command, "--json").out)
    assert (answer["state"], answer["within_68_m"], answer["within_95_m"]) == ("fix", None, None)
    assert answer["uncalibrated"] == "the gallery has no calibration"


def test_a_prior_of_its_own_for_each_frame_costs_no_memory_and_one_hash(
    tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = list[str]()

    def hash_places(lat: Floats, lon: Floats) -> str:
        hashed.append(places_sha256(lat, lon))
        return hashed[-1]

    monkeypatch.setattr(claims, "places_sha256", hash_places)
    frame = tiny.panorama(0)
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        for radius in range(500, 500 + 2 * claims.REMEMBERED):
            localizer.locate(frame, near=Near(*CENTRE, radius))
        assert len(localizer._claims) <= claims.REMEMBERED
        assert {localizer.conditions_near(near).places_sha256 for near in (None, 1.0, 2.0)} == set(hashed)
    assert len(hashed) == 1


def test_a_calibrated_gallery_states_radii_under_its_conditions_only(
    copied: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    data = _write_pairs(copied, tmp_path / "pairs", 90)
    calibrated = cli("gallery", "calibrate", copied.bundle, copied.gallery, "--data", f"pairs:{data}")
    assert calibrated.code == 0, calibrated.err
    assert "95 % within" in calibrated.out
    with open_gallery(copied.gallery) as gallery:
        kept = read_calibration(gallery)
    assert kept is not None
    assert (kept.queries, kept.shares) == (90, (0.68, 0.95))
    assert "\n  " in (copied.gallery / FILE_NAME).read_text()

    image = tmp_path / "pairs" / "ground" / "3.png"
    command = ("localize", image, "--bundle", copied.bundle, "--gallery", copied.gallery)
    assert "68 % within" in cli(*command).out
    answer = json.loads(cli(*command, "--json").out)
    assert 0 < answer["within_68_m"] <= answer["within_95_m"]
    assert answer["uncalibrated"] is None
    turned = cli(*command, "--headings", 8)
    assert "headings" in turned.err
    assert "uncalibrated" in turned.out
    assert "uncalibrated" in cli(*command, "--near", f"{CENTRE[0]},{CENTRE[1]},500").out


def test_images_off_the_map_are_counted(copied: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data = _write_pairs(copied, tmp_path / "pairs", 70)
    lines = (data / "pairs.csv").read_text().splitlines()
    lines[5] = lines[5].replace(",-30.", ",-31.")
    (data / "pairs.csv").write_text("\n".join(lines))
    calibrated = cli("gallery", "calibrate", copied.bundle, copied.gallery, "--data", f"pairs:{data}")
    assert calibrated.code == 0
    assert "1 of 70 images were taken off" in calibrated.err


def test_a_gallery_without_positions_cannot_be_calibrated(tmp_path: Path, refused: Callable[..., str]) -> None:
    tiny = make_world(tmp_path, 3, positioned=False)
    data = _write_pairs(tiny, tmp_path / "pairs", 70)
    drive = write_drive(tiny, tmp_path, across=3)
    message = refused("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", f"pairs:{data}")
    assert "position" in message
    assert "position" in refused("localize", "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--track", drive)


def test_too_few_images_calibrate_nothing(copied: TinyWorld, tmp_path: Path, refused: Callable[..., str]) -> None:
    data = _write_pairs(copied, tmp_path / "pairs", 20)
    assert "at least 60" in refused("gallery", "calibrate", copied.bundle, copied.gallery, "--data", f"pairs:{data}")


def test_a_broken_calibration_is_refused_by_name(copied: TinyWorld) -> None:
    (copied.gallery / FILE_NAME).write_text("{}")
    with pytest.raises(GalleryError, match=FILE_NAME):
        Localizer.open(copied.bundle, copied.gallery)


def test_each_answer_is_one_json_line(tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    images = [tiny.photograph(tmp_path / f"{row}.png", row, heading=90) for row in (2, 40)]
    printed = cli("localize", *images, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--headings", 8, "--json")
    answers = [json.loads(line) for line in printed.out.splitlines()]
    assert [answer["image"] for answer in answers] == [str(image) for image in images]
    assert [answer["candidates"][0]["row"] for answer in answers] == [2, 40]
    assert [answer["heading"] for answer in answers] == [90, 90]


def test_a_bad_image_stops_or_is_left_out_and_named(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    good, bad = tiny.photograph(tmp_path / "good.png", 2), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:200])
    command = ("localize", bad, good, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json")
    assert "bad.png cannot be decoded" in (message := refused(*command))
    assert message.endswith("--on-error skip\n")
    printed = cli(*command, "--on-error", "skip")
    assert printed.code == 0
    assert "bad.png" in printed.err
    assert [json.loads(line)["image"] for line in printed.out.splitlines()] == [str(good)]


@pytest.mark.parametrize("suffix", ["jsonl", "geojson", "gpx", "csv"])
def test_a_drive_is_tracked_into_every_format(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome], suffix: str
) -> None:
    pytest.importorskip("matplotlib")
    odometry, out, picture = write_drive(tiny, tmp_path), tmp_path / f"out.{suffix}", tmp_path / "track.png"
    printed = cli(
        *("localize", "--track", odometry, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--headings", 16),
        *("--out", out, "--picture", picture, "--json"),
    )
    assert printed.code == 0, printed.err
    answers = [json.loads(line) for line in printed.out.splitlines()]
    assert len(answers) == 33
    assert (answers[5]["own_lat"], answers[5]["candidates"]) == (None, [])
    last = answers[-1]
    own = answers[28]
    assert distance(own["own_lat"], own["own_lon"], tiny.lat[39], tiny.lon[39]) < SPACING
    assert last["state"] == "tracking"
    assert distance(last["lat"], last["lon"], tiny.lat[39], tiny.lon[39]) < SPACING / 2
    assert last["heading"] == pytest.approx(90, abs=20)
    assert out.stat().st_size > 0
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 1000


def test_a_track_on_tiles_far_apart_is_warned_about(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    bundle = shutil.copytree(tiny.bundle, tmp_path / "bundle")
    odometry = write_drive(tiny, tmp_path)
    command = ("localize", "--track", odometry, "--bundle", bundle, "--gallery", tiny.gallery)
    assert "apart" not in cli(*command).err  # the model does not state what its tiles covered
    state_imagery(bundle, "aerial", Imagery(tile_metres=60))
    assert "centres are 50 m apart" in (warned := cli(*command).err)
    assert "of 60 m at most 12 m apart" in warned


def test_impossible_requests_are_refused_before_any_work(
    tiny: TinyWorld, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tiny.photograph(tmp_path / "street.png", 2)
    taken = tmp_path / "taken.gpx"
    taken.write_text("mine")
    command = ("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery)
    assert ".geojson" in refused(*command, "--out", tmp_path / "out.txt")
    assert "exists" in refused(*command, "--out", taken)
    assert ".png" in refused(*command, "--picture", tmp_path / "out.jpg")
    with monkeypatch.context() as lean:
        lean.setitem(sys.modules, "matplotlib", None)
        assert "[plots]" in refused(*command, "--picture", tmp_path / "out.png")
    assert "too long" in refused(*command, "--out", tmp_path / f"{'n' * 300}.gpx")
    assert "too long" in refused("localize", tmp_path / f"{'n' * 300}.png", *command[2:])
    assert "LAT,LON,RADIUS" in refused(*command, "--near", "1,2")
    assert "-90 to 90" in refused(*command, "--near", "91,2,10")
    assert "above 0" in refused(*command, "--near", "1,2,nan")
    assert "Give images" in refused(*command[:1], *command[2:])
    assert "either images" in refused(*command, "--track", tmp_path / "drive.csv")
    assert "1 to 64" in refused(*command, "--headings", 65)


def _write_pairs(tiny: TinyWorld, folder: Path, count: int) -> Path:
    """Panoramas at the tiles' centres, each tile once or more, no two of them copies."""
    rows = []
    for index in range(count):
        row = index % len(tiny.tiles)
        image = tiny.photograph(folder / "ground" / f"{index}.png", row, seed=index)
        tile = tiny.bundle.parent / "tiles" / f"{row:03d}.png"
        rows.append((str(image.relative_to(folder)), str(tile), float(tiny.lat[row]), float(tiny.lon[row]), 0.0))
    write_pairs(folder, rows)
    return folder
