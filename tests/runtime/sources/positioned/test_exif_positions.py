"""A folder's tiles take their positions from EXIF, and an invalid EXIF position is named."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.ExifTags import GPS
from PIL.TiffImagePlugin import IFDRational
from positioned_folder import LATITUDES, LONGITUDES, places_of

from geodtr.runtime.errors import DataError
from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder


def _tag(path: Path, **tags: Any) -> Path:
    """An image with these GPS tags."""
    exif = Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = {GPS[name].value: value for name, value in tags.items()}
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


def _dms(value: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    whole = abs(value)
    degrees, minutes = int(whole), int(whole * 60 % 60)
    seconds = whole * 3600 - degrees * 3600 - minutes * 60
    return IFDRational(degrees), IFDRational(minutes), IFDRational(round(seconds * 10_000), 10_000)


def _position(lat: float, lon: float) -> dict[str, Any]:
    return {
        "GPSLatitude": _dms(lat), "GPSLatitudeRef": "S" if lat < 0 else "N",
        "GPSLongitude": _dms(lon), "GPSLongitudeRef": "W" if lon < 0 else "E",
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(lat=LATITUDES, lon=LONGITUDES, suffix=st.sampled_from(["jpg", "png", "webp"]))
def test_what_a_camera_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, lat: float, lon: float, suffix: str
) -> None:
    assume((lat, lon) != (0, 0))  # what cameras write that have no position
    root = tmp_path_factory.mktemp("exif")
    _tag(root / f"a.{suffix}", **_position(lat, lon))
    (place,) = places_of(root).values()
    assert place == pytest.approx((lat, lon), abs=1e-7)


def test_exif_is_read_if_names_give_nothing_or_on_request(tmp_path: Path) -> None:
    _tag(tmp_path / "1.5,2.5.jpg", **_position(48.1, -11.5))
    assert places_of(tmp_path) == {"1.5,2.5.jpg": (1.5, 2.5)}
    assert places_of(tmp_path, FolderOptions("exif"))["1.5,2.5.jpg"] == pytest.approx((48.1, -11.5))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"GPSLongitude": None, "GPSLongitudeRef": None}, "lacks GPSLongitude, GPSLongitudeRef"),
        ({"GPSLatitudeRef": None}, "lacks GPSLatitudeRef"),
        ({"GPSLatitudeRef": "X"}, "GPSLatitude"),
        ({"GPSLatitudeRef": "NS"}, "GPSLatitude"),
        ({"GPSLatitude": (IFDRational(1, 0), IFDRational(0), IFDRational(0))}, "GPSLatitude 1/0, 0/1, 0/1"),
        ({"GPSLongitude": (IFDRational(11), IFDRational(30), IFDRational(0, 0))}, "GPSLongitude 11/1, 30/1, 0/0"),
        ({"GPSLongitudeRef": "\x01"}, "GPSLongitudeRef '\\x01'"),
        ({**_position(0.0, 0.0)}, "GPSLatitude 0 and GPSLongitude 0"),
        ({"GPSLatitude": (IFDRational(91), IFDRational(0), IFDRational(0))}, "lat is 91"),
        ({"GPSLatitude": (IFDRational(48),)}, "degrees, minutes and seconds"),
    ],
)
def test_half_a_position_in_exif_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    tags = {**_position(48.1, 11.5), **change}
    _tag(tmp_path / "a.jpg", **{name: value for name, value in tags.items() if value is not None})
    with pytest.raises(DataError) as caught:
        open_folder(tmp_path)
    assert expected in str(caught.value)
    assert "a.jpg" in str(caught.value)


def test_an_image_without_exif_among_others_is_named(tmp_path: Path) -> None:
    _tag(tmp_path / "a.jpg", **_position(48.1, 11.5))
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.jpg: its EXIF gives no position, and 1 of 3"):
        open_folder(tmp_path)


def test_images_without_a_position_are_left_out_on_request(tmp_path: Path) -> None:
    for number in range(3):
        _tag(tmp_path / f"a{number}.jpg", **_position(48.1 + number / 100, 11.5))
    _tag(tmp_path / "hidden.jpg", **_position(0.0, 0.0))
    Image.new("RGB", (8, 8)).save(tmp_path / "none.jpg")
    with pytest.raises(DataError, match=r"hidden\.jpg.*--skip-unpositioned"):
        open_folder(tmp_path)
    source = open_folder(tmp_path, FolderOptions(skip_unpositioned=True))
    assert [tile.id for tile in source.tiles] == ["a0.jpg", "a1.jpg", "a2.jpg"]
    assert any("2 of 5 images are left out" in note and "hidden.jpg" in note for note in source.notes)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 250), value=st.integers(0, 255), cut=st.integers(0, 400))
def test_damaged_exif_gives_positions_within_range_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: int
) -> None:
    root = tmp_path_factory.getbasetemp() / "damaged"
    root.mkdir(exist_ok=True)
    content = bytearray(_tag(root / "a.jpg", **_position(48.1, 11.5)).read_bytes())
    content[place] = value
    (root / "a.jpg").write_bytes(content[: len(content) - cut])
    try:
        (found,) = places_of(root).values()
    except DataError as error:
        assert "a.jpg" in str(error)
    else:
        assert found == (None, None) or (abs(found[0] or 0) <= 90 and abs(found[1] or 0) <= 180)
