"""Calibrating on a user's own photographs, by EXIF or a table, and under a prior; never over a good calibration."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image
from tiny_world import TinyWorld, make_world, trained_on
from xmp_photo import packet, write_photo

from geodtr import open_gallery
from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.geodesy import moved
from geodtr.runtime.localization.calibration import FILE_NAME, read_calibration
from geodtr.runtime.localization.known_images import read_known_images
from geodtr.runtime.spec import Imagery

EAST = 6.0
"""Metres by which the photographs' positions are off."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return trained_on(
        make_world(tmp_path_factory.mktemp("tiny")), Imagery(projection="panorama", field_of_view=360, aspect=4)
    )


@pytest.fixture
def tiny(made: TinyWorld, tmp_path: Path) -> TinyWorld:
    """With a gallery that a test may write into."""
    gallery = shutil.copytree(made.gallery, tmp_path / "gallery")
    return TinyWorld(made.bundle, gallery, made.tiles, made.lat, made.lon)


def gps(lat: float, lon: float) -> Image.Exif:
    exif = Image.Exif()

    def parts(degrees: float) -> tuple[float, float, float]:
        whole, minutes = divmod(abs(degrees) * 60, 60)
        return whole, int(minutes), round(minutes % 1 * 60, 5)

    exif[0x8825] = {1: "N" if lat >= 0 else "S", 2: parts(lat), 3: "E" if lon >= 0 else "W", 4: parts(lon)}
    return exif


def photographs(tiny: TinyWorld, folder: Path, count: int = 64) -> Path:
    """Panoramas at the tiles' centres whose GPS tags are EAST metres off to the west."""
    folder.mkdir()
    for row in range(count):
        lat, lon = (float(value) for value in moved(tiny.lat[row], tiny.lon[row], -EAST, 0))
        write_photo(folder / f"{row:02}.jpg", tiny.panorama(row, seed=row), exif=gps(lat, lon))
    return folder


def table(tiny: TinyWorld, path: Path, north: float = 0.0, count: int = 64) -> Path:
    lines = ["ground,lat,lon,altitude"]
    for row in range(count):
        image = tiny.photograph(path.parent / "images" / f"{row}.png", row)
        lines.append(f"{image.relative_to(path.parent)},{tiny.lat[row] + north},{tiny.lon[row]},12")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_bias_can_be_corrected(tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Fixes are moved back, which the calibration records and every output states."""
    folder = photographs(tiny, tmp_path / "photos")
    command = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", folder, "--correct-bias")
    printed = cli(*command)
    assert printed.code == 0, printed.err
    assert " m towards 90° (95 %: 5.8 to 6.3 m east, " in printed.out
    assert "positions are moved back by it" in printed.out
    with open_gallery(tiny.gallery) as gallery:
        kept = read_calibration(gallery)
    assert kept is not None
    assert kept.corrected
    assert kept.bias_interval_m is not None
    located = ("localize", folder / "09.jpg", "--bundle", tiny.bundle, "--gallery", tiny.gallery)
    out = tmp_path / "fix.csv"
    assert "moved 6.1 m against the map's bias" in cli(*located, "--flight", "exif", "--out", out).out
    header, row = (line.split(",") for line in out.read_text().splitlines())
    values = dict(zip(header, row, strict=True))
    assert float(values["corrected_m"]) == pytest.approx(EAST, abs=0.2)
    assert float(values["gnss_off_m"]) < EAST - 2  # of a single image


def test_a_bias_that_may_be_chance_is_not_corrected(
    tiny: TinyWorld, tmp_path: Path, refused: Callable[..., str]
) -> None:
    data = table(tiny, tmp_path / "known.csv")
    before = sorted(path.name for path in tiny.gallery.iterdir())
    text = refused("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", data, "--correct-bias")
    assert "may be chance" in text
    assert "Calibrate without --correct-bias" in text
    assert sorted(path.name for path in tiny.gallery.iterdir()) == before


def test_geotagged_photographs_calibrate_and_report_the_bias(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    folder = photographs(tiny, tmp_path / "photos")
    command = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", folder)
    printed = cli(*command)
    assert printed.code == 0, printed.err
    assert "bias (median): 6.0 m towards 90°" in printed.out
    with open_gallery(tiny.gallery) as gallery:
        kept = read_calibration(gallery)
    assert kept is not None
    assert kept.queries == 64
    assert kept.bias is not None
    assert kept.bias[0] == pytest.approx(EAST, abs=0.1)
    assert kept.bias[1] == pytest.approx(90, abs=1)


def test_a_calibration_is_replaced_only_on_request(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    command = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", table(tiny, tmp_path / "known.csv"))
    assert cli(*command).code == 0
    before = (tiny.gallery / FILE_NAME).read_bytes()
    assert "--replace" in refused(*command)
    assert (tiny.gallery / FILE_NAME).read_bytes() == before
    assert cli(*command, "--limit", 62, "--replace").code == 0
    assert (tiny.gallery / FILE_NAME).read_bytes() != before


def test_images_off_the_map_calibrate_nothing(tiny: TinyWorld, tmp_path: Path, refused: Callable[..., str]) -> None:
    data = table(tiny, tmp_path / "known.csv", north=1.0)
    message = refused("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", data)
    assert "64 of 64 images were taken off the gallery's map" in message
    assert "0.png" in message
    assert not (tiny.gallery / FILE_NAME).exists()


def test_a_radius_of_0_metres_is_never_claimed(tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data = table(tiny, tmp_path / "known.csv")
    assert cli("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", data).code == 0
    image = tmp_path / "images" / "3.png"
    answer = json.loads(cli("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json").out)
    assert 1 <= answer["within_68_m"] <= answer["within_95_m"]


def test_a_prior_is_calibrated_by_itself(tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    data = table(tiny, tmp_path / "known.csv")
    calibrate = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", data)
    near = (float(tiny.lat[3]), float(tiny.lon[3]))
    command = ("localize", tmp_path / "images" / "3.png", "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json")
    assert cli(*calibrate, "--near", 150).code == 0
    under = json.loads(cli(*command, "--near", f"{near[0]},{near[1]},150").out)
    assert 0 < under["within_68_m"] <= under["within_95_m"]
    assert json.loads(cli(*command).out)["uncalibrated"] == "the gallery has no calibration"
    other = json.loads(cli(*command, "--near", f"{near[0]},{near[1]},300").out)
    assert other["uncalibrated"] == "the gallery has no calibration for a prior of 300 m"
    assert cli(*calibrate).code == 0
    assert json.loads(cli(*command).out)["uncalibrated"] is None
    assert cli(*calibrate, "--near", "-1").code == 2


def test_a_radius_is_claimed_only_for_images_converted_as_those_measured(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    folder = spheres(tiny, tmp_path / "spheres")
    calibrate = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", table(tiny, tmp_path / "known.csv"))
    assert cli(*calibrate).code == 0
    command = ("localize", folder / "03.png", "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--json")
    other = json.loads(cli(*command, "--from", "equirectangular").out)
    assert "cropped from the whole sphere" in other["uncalibrated"]
    known = folder / "known.csv"
    assert cli(*calibrate[:-1], known, "--from", "equirectangular", "--replace").code == 0
    assert json.loads(cli(*command, "--from", "equirectangular").out)["uncalibrated"] is None
    image = tmp_path / "images" / "3.png"
    assert "as taken" in json.loads(cli(*command[:1], image, *command[2:]).out)["uncalibrated"]


def test_images_that_the_model_was_not_trained_on_are_not_measured(
    tiny: TinyWorld, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = spheres(tiny, tmp_path / "spheres")
    command = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", folder / "known.csv", "--mismatch", "warn")
    assert "no radius is ever claimed for such images" in refused(*command)
    assert "0 images have a fix" in refused(*command, "--on-error", "skip")
    assert not (tiny.gallery / FILE_NAME).exists()


def test_a_copy_of_an_image_is_not_measured(tiny: TinyWorld, tmp_path: Path, refused: Callable[..., str]) -> None:
    data = table(tiny, tmp_path / "known.csv", count=10)
    header, *rows = data.read_text().splitlines()
    data.write_text("\n".join([header, *rows * 7]) + "\n")
    command = ("gallery", "calibrate", tiny.bundle, tiny.gallery, "--data", data)
    assert "0.png is a copy of" in refused(*command)
    assert "10 images have a fix" in refused(*command, "--on-error", "skip")


def spheres(tiny: TinyWorld, folder: Path) -> Path:
    """Equirectangular images at the tiles' centres, and their positions in known.csv."""
    folder.mkdir()
    lines = ["ground,lat,lon"]
    for row in range(64):
        sphere = np.zeros((32, 64, 3), np.uint8)
        sphere[8:24] = tiny.panorama(row, seed=row)
        Image.fromarray(sphere).save(folder / f"{row:02}.png")
        lines.append(f"{row:02}.png,{tiny.lat[row]},{tiny.lon[row]}")
    (folder / "known.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_photographs_without_a_position_stop_or_are_left_out_by_name(tmp_path: Path) -> None:
    pixels = np.zeros((8, 32, 3), np.uint8)
    write_photo(tmp_path / "none.jpg", pixels)
    write_photo(tmp_path / "zero.jpg", pixels, exif=gps(0, 0))
    good = write_photo(tmp_path / "good.jpg", pixels, exif=gps(-30.5, 15.25))
    elsewhere = packet(dji={"GpsLatitude": -30.6, "GpsLongitude": 15.25})
    write_photo(tmp_path / "twice.jpg", pixels, elsewhere, gps(-30.5, 15.25))

    def stop(reason: str) -> None:
        raise ImageError(reason)

    with pytest.raises(ImageError, match=r"none\.jpg: its tags give no position"):
        read_known_images(tmp_path, stop)
    left_out = list[str]()
    (known,) = read_known_images(tmp_path, left_out.append)
    assert (known.image, round(known.lat, 6), round(known.lon, 6)) == (good, -30.5, 15.25)
    named = [next(name for name in ("none", "twice", "zero") if f"{name}.jpg" in reason) for reason in left_out]
    assert named == ["none", "twice", "zero"]
    assert "m apart" in left_out[1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ground,lat\na.png,1\n", "needed are ground, lat and lon"),
        ("ground,lat,lon\na.png,1\n", "line 2: 2 values"),
        ("ground,lat,lon\na.png,x,2\n", "line 2: lat 'x'"),
        ("ground,lat,lon\na.png,91,2\n", "line 2: lat is 91"),
        ("ground,lat,lon\na.png,nan,2\n", "line 2: lat is nan"),
        ("", "needed are"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "known.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        read_known_images(path, lambda _: None)
    with pytest.raises(DataError, match="neither a folder"):
        read_known_images(tmp_path / "known.txt", lambda _: None)
