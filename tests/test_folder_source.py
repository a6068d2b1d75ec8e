"""A folder of images: positions come from where the user put them, and half-known ones are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.ExifTags import GPS
from PIL.TiffImagePlugin import IFDRational

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.sources.folder import FolderOptions, open_folder
from geodtr.runtime.sources.name_pattern import compile_pattern, find_in_name, match_names
from geodtr.runtime.sources.opening import open_source

Degrees = tuple[float, float]

AS_FOUND = FolderOptions()

LATITUDES = st.floats(-90, 90).map(lambda value: round(value, 6))
LONGITUDES = st.floats(-180, 180).map(lambda value: round(value, 6))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of small images with these names, or none."""

    def make(*names: str) -> Path:
        root = tmp_path / "tiles"
        for number, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name)
        return root

    return make


def _places(root: Path, options: FolderOptions = AS_FOUND) -> dict[str, tuple[float | None, float | None]]:
    return {tile.id: (tile.lat, tile.lon) for tile in open_folder(root, options).tiles}


def _write(root: Path, text: str, name: str = "tiles.csv") -> Path:
    (root / name).write_text(text)
    return root / name


# A CSV


def test_a_csv_gives_all_that_a_tile_says(folder: Callable[..., Path]) -> None:
    root = folder("a.png", "deep/b.png")
    _write(
        root,
        "file,lat,lon,heading,metres_per_pixel,id,flown\ndeep/b.png,48.1,11.5,-90,0.25,B,2024-05-01\na.png,,,,,,\n",
    )
    source = open_source(root)
    b, a = source.tiles
    assert (b.id, b.lat, b.lon, b.heading, b.metres_per_pixel) == ("B", 48.1, 11.5, 270, 0.25)
    assert b.more == {"flown": "2024-05-01"}
    assert (a.id, a.lat, a.lon, a.heading, a.metres_per_pixel, a.more) == ("a.png", None, None, None, None, {})
    assert "tiles.csv" in source.notes[0]
    assert source.read(b).pixels[0, 0].tolist() == [1, 0, 0]


def test_a_csv_may_lie_elsewhere_and_come_from_a_spreadsheet(folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder("a.png")
    (tmp_path / "mine.csv").write_bytes("\ufefffile, lat ,lon\r\na.png, 1.5,-2.5\r\n\r\n".encode())
    assert _places(root, FolderOptions(tmp_path / "mine.csv")) == {"a.png": (1.5, -2.5)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns (none)"),
        ("file,lat,lon\n", "lists no tiles"),
        ("name,lat,lon\na.png,1,2\n", "needed are file"),
        ("file,lat\na.png,1\n", "both lat and lon"),
        ("file,lat,lon,lat\na.png,1,2,3\n", "twice"),
        ("file,lat,lon\na.png,1\n", "line 2: 2 values where the header names 3"),
        ("file,lat,lon\na.png,1,\n", "line 2: give both lat and lon of a.png"),
        ("file,lat,lon\na.png,north,2\n", "line 2: lat is 'north'"),
        ("file,lat,lon\na.png,nan,2\n", "line 2: lat is nan"),
        ("file,lat,lon\na.png,1,inf\n", "line 2: lon is inf"),
        ("file,lat,lon\na.png,91,2\n", "line 2: lat is 91; it must lie within -90 and 90"),
        ("file,lat,lon\na.png,1,-180.5\n", "line 2: lon is -180.5"),
        ("file,lat,lon,heading\na.png,1,2,400\n", "line 2: heading is 400"),
        ("file,metres_per_pixel\na.png,0\n", "line 2: metres_per_pixel is 0"),
        ("file,metres_per_pixel\na.png,nan\n", "line 2: metres_per_pixel is nan"),
        ("file\n\"\"\n", "line 2: file is empty"),
        ("file\nb.png\n", "b.png does not exist"),
        ("file\n" + "b" * 300 + ".png\n", "does not exist"),
        ("file\na.png\na.png\n", "line 3: the id a.png is that of line 2"),
        ("file,id\na.png,1\nc.png,1\n", "line 3: the id 1 is that of line 2"),
    ],
)  # fmt: skip
def test_a_wrong_csv_is_named_by_its_line(folder: Callable[..., Path], text: str, said: str) -> None:
    root = folder("a.png", "c.png")
    _write(root, text)
    with pytest.raises(DataError) as caught:
        open_folder(root)
    assert said in str(caught.value)
    assert "tiles.csv" in str(caught.value)


def test_what_is_no_csv_is_named(folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder("a.png")
    (root / "tiles.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(DataError, match="not a CSV in UTF-8"):
        open_folder(root)
    with pytest.raises(DataError, match="cannot be read"):
        open_folder(root, FolderOptions(tmp_path / "none.csv"))


@settings(max_examples=80, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: f"file,lat,lon\n{text}".encode()))
)
def test_any_bytes_for_a_csv_give_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.getbasetemp()
    (root / "tiles.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"tiles\.csv"):
        open_folder(root)


# Names


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("satellite_40.7128_-74.006.png", (40.7128, -74.006)),
        ("48.137,11.575.jpg", (48.137, 11.575)),
        ("-33.8,151.2.png", (-33.8, 151.2)),
        ("pNxQ2-x,41.87,-87.63,.jpg", (41.87, -87.63)),
        ("lat_48.137_lon_11.575.png", (48.137, 11.575)),
        ("tile7_lat48.137_lng-11.575_z19.png", (48.137, -11.575)),
        ("Latitude=48.5,Longitude=11.25.png", (48.5, 11.25)),
        ("@0584300.1@4477000.2@17@T@40.441@-80.003@id@@90@@@@2014@@.jpg", (40.441, -80.003)),
    ],
)
def test_common_names_are_understood(folder: Callable[..., Path], name: str, place: Degrees) -> None:
    root = folder(name)
    assert _places(root) == {name: place}
    assert "names" in open_folder(root).notes[0]


@pytest.mark.parametrize("name", ["000123.png", "tile_12_34.png", "2024,05.png", "flat_1.5_long_2.5.png", "1.2.3.png"])
def test_other_names_give_no_position(folder: Callable[..., Path], name: str) -> None:
    source = open_folder(folder(name))
    assert source.tiles[0].lat is None
    assert "No positions" in source.notes[0]


@settings(max_examples=80, deadline=None)
@given(
    lat=LATITUDES, lon=LONGITUDES, heading=st.integers(0, 359),
    form=st.sampled_from(["satellite_{lat}_{lon}", "{lat},{lon}", "lat_{lat}_lon_{lon}", "@1@2@3@T@{lat}@{lon}@x"]),
    pattern=st.sampled_from(["z{heading}_{lat}x{lon}", "*{lat};{lon};{heading}", "{lat}_{heading}_{lon}*"]),
)  # fmt: skip
def test_what_is_written_into_a_name_is_read_from_it(
    lat: float, lon: float, heading: int, form: str, pattern: str
) -> None:
    known = find_in_name(Path(form.format(lat=f"{lat:.6f}", lon=f"{lon:.6f}") + ".png"))
    assert known is not None
    assert (known.lat, known.lon) == (lat, lon)
    name = pattern.replace("*", "some_").format(lat=f"{lat:.6f}", lon=f"{lon:.6f}", heading=heading)
    (read,) = match_names([Path(name + ".jpg")], compile_pattern(pattern))
    assert (read.lat, read.lon, read.heading) == (lat, lon, heading)


def test_a_pattern_of_ones_own_takes_numbers_whole(folder: Callable[..., Path]) -> None:
    root = folder("tile-48.1_11.png")
    assert _places(root, FolderOptions(pattern="tile{lat}_{lon}")) == {"tile-48.1_11.png": (-48.1, 11)}
    assert _places(root, FolderOptions(pattern="tile-{lat}_{lon}.png")) == {"tile-48.1_11.png": (48.1, 11)}
    assert _places(root, FolderOptions("names", "*e-{lat}_{lon}")) == {"tile-48.1_11.png": (48.1, 11)}
    with pytest.raises(DataError, match=r"tile-48\.1_11\.png: its name does not fit"):
        _places(root, FolderOptions(pattern="*{lat}*{lon}{heading}"))


@pytest.mark.parametrize(
    "pattern", ["", "{lat}", "{lat}_{lat}_{lon}", "{lat}_{lon}_{height}", "lat_lon", "{lat}{}{lon}"]
)
def test_a_pattern_that_cannot_work_is_refused(folder: Callable[..., Path], pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        open_folder(folder("a.png"), FolderOptions(pattern=pattern))


def test_names_that_are_half_known_are_named(folder: Callable[..., Path]) -> None:
    root = folder("48.1,11.5.png", "48.2,11.5.png", "other.png")
    with pytest.raises(DataError, match=r"other\.png: its name gives no position, and 2 of 3"):
        open_folder(root)
    assert set(_places(root, FolderOptions("none")).values()) == {(None, None)}


def test_a_name_out_of_range_or_of_two_meanings_is_named(folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"95\.5,11\.5\.png: lat is 95\.5"):
        open_folder(folder("95.5,11.5.png"))
    twice = tmp_path / "twice"
    twice.mkdir()
    Image.new("RGB", (8, 8)).save(twice / "lat_1.5_lon_2.5,3.5,4.5.png")
    with pytest.raises(DataError, match=r"may mean 1\.5, 2\.5 or 3\.5, 4\.5.*--pattern"):
        open_folder(twice)


def test_names_that_were_asked_for_and_give_nothing_are_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"a\.png.*known are satellite_LAT_LON"):
        open_folder(folder("a.png"), FolderOptions("names"))


# EXIF


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
    root = tmp_path_factory.mktemp("exif")
    _tag(root / f"a.{suffix}", **_position(lat, lon))
    (place,) = _places(root).values()
    assert place == pytest.approx((lat, lon), abs=1e-7)


def test_exif_is_read_where_names_give_nothing_and_may_be_asked_for(tmp_path: Path) -> None:
    _tag(tmp_path / "1.5,2.5.jpg", **_position(48.1, -11.5))
    assert _places(tmp_path) == {"1.5,2.5.jpg": (1.5, 2.5)}
    assert _places(tmp_path, FolderOptions("exif"))["1.5,2.5.jpg"] == pytest.approx((48.1, -11.5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"GPSLongitude": None, "GPSLongitudeRef": None}, "lacks GPSLongitude, GPSLongitudeRef"),
        ({"GPSLatitudeRef": None}, "lacks GPSLatitudeRef"),
        ({"GPSLatitudeRef": "X"}, "GPSLatitude"),
        ({"GPSLatitude": (IFDRational(1, 0), IFDRational(0), IFDRational(0))}, "lat is nan"),
        ({"GPSLatitude": (IFDRational(91), IFDRational(0), IFDRational(0))}, "lat is 91"),
        ({"GPSLatitude": (IFDRational(48),)}, "degrees, minutes and seconds"),
    ],
)
def test_half_a_position_in_exif_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    tags = {**_position(48.1, 11.5), **change}
    _tag(tmp_path / "a.jpg", **{name: value for name, value in tags.items() if value is not None})
    with pytest.raises(DataError) as caught:
        open_folder(tmp_path)
    assert said in str(caught.value)
    assert "a.jpg" in str(caught.value)


def test_an_image_without_exif_among_others_is_named(tmp_path: Path) -> None:
    _tag(tmp_path / "a.jpg", **_position(48.1, 11.5))
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.jpg: its EXIF gives no position, and 1 of 3"):
        open_folder(tmp_path)


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
        (found,) = _places(root).values()
    except DataError as error:
        assert "a.jpg" in str(error)
    else:
        assert found == (None, None) or (abs(found[0] or 0) <= 90 and abs(found[1] or 0) <= 180)


# The folder itself


def test_an_empty_folder_and_none_at_all_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no images"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"none does not exist.*\.tif"):
        open_source(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="file of another kind"):
        open_source(tmp_path / "a.txt")


def test_a_pattern_excludes_other_origins() -> None:
    with pytest.raises(ConfigError, match="exif"):
        FolderOptions("exif", "{lat}_{lon}")


def test_a_tile_that_is_no_image_is_named_when_it_is_read(folder: Callable[..., Path]) -> None:
    root = folder("a.png", "b.png")
    (root / "b.png").write_bytes((root / "a.png").read_bytes()[:40])
    source = open_folder(root)
    assert source.read(source.tiles[0]).pixels.dtype == np.uint8
    with pytest.raises(ImageError, match=r"b\.png"):
        source.read(source.tiles[1])
