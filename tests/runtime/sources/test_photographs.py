"""A photograph's position, heading, tilt, height and ground size, each with its origin; unknown stays unknown."""

import json
from collections.abc import Callable, Mapping
from math import atan, degrees, hypot
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from xmp_photo import packet, write_photo

from geodtr import UserError
from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.images.decode import SUFFIXES, decode
from geodtr.runtime.images.recorded import Recorded, Stated
from geodtr.runtime.sources.positioned.photograph import read_photograph

WIDTH, HEIGHT = 40, 30
NADIR = {
    "GpsLatitude": "+48.100010",
    "GpsLongtitude": "+11.500000",
    "RelativeAltitude": "+119.98",
    "GimbalPitchDegree": "-90.00",
    "GimbalYawDegree": "+30.50",
    "GimbalRollDegree": "+0.00",
    "RtkFlag": "50",
}


def photo(
    path: Path,
    dji: Mapping[str, object] | None = None,
    focal: int | None = None,
    direction: str = "",
    orientation: int = 1,
) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if focal is not None:
        exif.get_ifd(0x8769)[0xA405] = focal
        exif[0x8769] = exif.get_ifd(0x8769)
    gps: dict[int, object] = {1: "N", 2: (48.0, 6.0, 0.0), 3: "E", 4: (11.0, 30.0, 0.0)}
    if direction:
        gps |= {16: direction, 17: 123.5}
    exif[0x8825] = gps
    xmp = b"" if dji is None else packet(dji=dji)
    return write_photo(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8), xmp, exif)


def test_a_drones_nadir_photograph_states_all_with_its_origin(tmp_path: Path) -> None:
    known = read_photograph(photo(tmp_path / "a.jpg", NADIR, focal=24))
    view = degrees(2 * atan(hypot(36, 24) * WIDTH / hypot(WIDTH, HEIGHT) / 48))
    assert known.lat == Stated(48.10001, "XMP GpsLatitude")
    assert known.lon == Stated(11.5, "XMP GpsLongtitude")
    assert known.heading == Stated(30.5, "XMP GimbalYawDegree")
    assert known.tilt == Stated(0.0, "XMP GimbalPitchDegree")
    assert known.height == Stated(119.98, "XMP RelativeAltitude")
    assert known.field_of_view is not None
    assert known.field_of_view.value == pytest.approx(view)
    assert known.ground_metres is not None
    assert known.ground_metres.value == pytest.approx(119.98 * hypot(36, 24) * 0.8 / 24)
    assert known.ground_metres.origin == "XMP RelativeAltitude, EXIF FocalLengthIn35mmFilm"
    assert known.rtk


def test_a_part_of_a_panorama_states_what_it_covers(tmp_path: Path) -> None:
    """The heading is its middle's, and the lens that it was stitched from does not count."""
    turn = {"FullPanoWidthPixels": 160, "CroppedAreaImageWidthPixels": 40, "PoseHeadingDegrees": 350}
    exif = Image.Exif()
    exif[0x8769] = {0xA405: 26}
    pixels = np.zeros((10, 40, 3), np.uint8)
    part = packet({**turn, "CroppedAreaLeftPixels": 80})
    known = read_photograph(write_photo(tmp_path / "a.jpg", pixels, part, exif))
    assert known.heading == Stated(35.0, "XMP PoseHeadingDegrees")
    assert known.field_of_view == Stated(90.0, "XMP CroppedAreaImageWidthPixels")
    unplaced = read_photograph(write_photo(tmp_path / "b.jpg", pixels, packet(turn)))
    assert (unplaced.heading, unplaced.field_of_view) == (None, known.field_of_view)


def test_what_no_tag_states_stays_unknown(tmp_path: Path) -> None:
    plain = read_photograph(write_photo(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8)))
    assert plain == Recorded(str(tmp_path / "a.jpg"))
    zeros = {f"Gimbal{name}Degree": "0.00" for name in ("Pitch", "Yaw", "Roll")}
    known = read_photograph(photo(tmp_path / "b.jpg", zeros, focal=0, direction="M"))
    assert (known.heading, known.tilt, known.field_of_view, known.ground_metres) == (None, None, None, None)
    assert known.lat == Stated(48.1, "EXIF GPSLatitude")
    oblique = read_photograph(photo(tmp_path / "c.jpg", {**NADIR, "GimbalPitchDegree": "-45"}, focal=24))
    assert oblique.tilt is not None
    assert (oblique.tilt.value, oblique.ground_metres) == (45, None)
    true_north = read_photograph(photo(tmp_path / "d.jpg", direction="T"))
    assert true_north.heading == Stated(123.5, "EXIF GPSImgDirection")


def test_a_gimbal_that_is_upside_down_points_the_other_way(tmp_path: Path) -> None:
    known = read_photograph(photo(tmp_path / "a.jpg", {**NADIR, "GimbalRollDegree": "180.0"}))
    assert known.heading == Stated(210.5, "XMP GimbalYawDegree")


@pytest.mark.parametrize(("orientation", "heading"), [(1, 30.5), (3, 210.5), (6, 300.5), (8, 120.5), (2, None)])
def test_a_photograph_on_its_side_is_described_as_it_is_decoded(
    tmp_path: Path, orientation: int, heading: float | None
) -> None:
    path = photo(tmp_path / "a.jpg", NADIR, focal=24, orientation=orientation)
    width, height = decode(path).image.size
    assert (width < height) == (orientation in (6, 8))
    known = read_photograph(path)
    assert known.field_of_view is not None
    across = hypot(36, 24) * width / hypot(width, height)
    assert known.field_of_view.value == pytest.approx(degrees(2 * atan(across / 48)))
    assert (known.heading and known.heading.value) == heading


def test_a_height_below_take_off_is_stated_and_gives_no_ground_size(tmp_path: Path) -> None:
    known = read_photograph(photo(tmp_path / "a.jpg", {**NADIR, "RelativeAltitude": "-3.5"}, focal=24))
    assert known.height == Stated(-3.5, "XMP RelativeAltitude")
    assert (known.ground_metres, known.position) == (None, (48.10001, 11.5))


def test_every_kind_of_image_that_is_listed_is_read(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        Image.new("RGB", (8, 6)).save(tmp_path / f"a{suffix}")
        assert read_photograph(tmp_path / f"a{suffix}").position is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"RelativeAltitude": "high"}, "RelativeAltitude 'high'"),
        ({"GimbalYawDegree": "nan"}, "GimbalYawDegree 'nan'"),
        ({"GpsLatitude": "48.2"}, "EXIF gives 48.100000, 11.500000 and its XMP 48.200000"),
        ({"GpsLatitude": "148"}, "no such place"),
    ],
)
def test_tags_that_cannot_be_are_named(
    tmp_path: Path, change: dict[str, object], reason: str, cli: Callable[..., Outcome]
) -> None:
    path = photo(tmp_path / "a.jpg", {**NADIR, **change})
    with pytest.raises((DataError, ImageError), match=rf"a\.jpg.*{reason}"):
        read_photograph(path)
    assert cli("photos", path).code == 2
    skipped = cli("photos", tmp_path, "--on-error", "skip", "--json")
    assert (skipped.code, skipped.out) == (0, "")
    assert "a.jpg" in skipped.err


def test_the_command_prints_values_with_their_origin(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    path = photo(tmp_path / "a.jpg", NADIR, focal=24)
    printed = cli("photos", path)
    assert printed.code == 0
    assert "48.100010°" in printed.out
    assert "XMP GimbalYawDegree" in printed.out
    answer = json.loads(cli("photos", tmp_path, "--json").out)
    assert answer["heading"] == {"value": 30.5, "origin": "XMP GimbalYawDegree"}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_photograph_is_read_or_named(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.jpg"
    if not path.exists():
        photo(path, NADIR, focal=24)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(whole[:place] + data.draw(st.binary(min_size=1, max_size=6)) + whole[place + 1 :])
    try:
        known = read_photograph(damaged)
    except UserError as error:
        assert "damaged.jpg" in str(error)
    else:
        assert isinstance(known, Recorded)


def test_what_is_no_photograph_is_named_without_the_systems_words(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    (tmp_path / "a.txt").write_text("none")
    cut = photo(tmp_path / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:100])
    for name, fault in (("none.jpg", "does not exist"), ("a.txt", "is not an image"), ("cut.jpg", "cannot be")):
        answer = cli("photos", tmp_path / name)
        assert answer.code == 2
        assert f"{name} " in answer.err
        assert fault in answer.err
        assert "Errno" not in answer.err
