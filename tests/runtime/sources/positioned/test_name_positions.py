"""A folder's tiles take their positions from their names, by the common forms or a given pattern."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from positioned_folder import LATITUDES, LONGITUDES, places_of, write_folder

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.sources.positioned.filename import compile_pattern, find_in_name, match_name
from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder

Degrees = tuple[float, float]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_folder, tmp_path / "tiles")


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
        ("@0584300.1@4477000.2@17@T@40.441@-80.003@id902014.jpg", (40.441, -80.003)),
    ],
)
def test_common_names_are_understood(folder: Callable[..., Path], name: str, place: Degrees) -> None:
    root = folder(name)
    assert places_of(root) == {name: place}
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
def test_a_position_written_into_a_name_is_read_back(
    lat: float, lon: float, heading: int, form: str, pattern: str
) -> None:
    known = find_in_name(Path(form.format(lat=f"{lat:.6f}", lon=f"{lon:.6f}") + ".png"))
    assert known is not None
    assert (known.lat, known.lon) == (lat, lon)
    name = pattern.replace("*", "some_").format(lat=f"{lat:.6f}", lon=f"{lon:.6f}", heading=heading)
    read = match_name(Path(name + ".jpg"), compile_pattern(pattern))
    assert (read.lat, read.lon, read.heading) == (lat, lon, heading)


def test_a_given_pattern_reads_whole_numbers(folder: Callable[..., Path]) -> None:
    root = folder("tile-48.1_11.png")
    assert places_of(root, FolderOptions(pattern="tile{lat}_{lon}")) == {"tile-48.1_11.png": (-48.1, 11)}
    assert places_of(root, FolderOptions(pattern="tile-{lat}_{lon}.png")) == {"tile-48.1_11.png": (48.1, 11)}
    assert places_of(root, FolderOptions("names", "*e-{lat}_{lon}")) == {"tile-48.1_11.png": (48.1, 11)}
    with pytest.raises(DataError, match=r"tile-48\.1_11\.png: its name does not fit"):
        places_of(root, FolderOptions(pattern="*{lat}*{lon}{heading}"))


@pytest.mark.parametrize(
    "pattern", ["", "{lat}", "{lat}_{lat}_{lon}", "{lat}_{lon}_{height}", "lat_lon", "{lat}{}{lon}"]
)
def test_a_pattern_that_cannot_work_is_refused(folder: Callable[..., Path], pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        open_folder(folder("a.png"), FolderOptions(pattern=pattern))


def test_names_with_only_some_positions_are_named(folder: Callable[..., Path]) -> None:
    root = folder("48.1,11.5.png", "48.2,11.5.png", "other.png")
    with pytest.raises(DataError, match=r"other\.png: its name gives no position, and 2 of 3"):
        open_folder(root)
    assert set(places_of(root, FolderOptions("none")).values()) == {(None, None)}


def test_an_ambiguous_name_or_one_out_of_range_is_named(folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"95\.5,11\.5\.png: lat is 95\.5"):
        open_folder(folder("95.5,11.5.png"))
    twice = tmp_path / "twice"
    twice.mkdir()
    Image.new("RGB", (8, 8)).save(twice / "lat_1.5_lon_2.5,3.5,4.5.png")
    with pytest.raises(DataError, match=r"may mean 1\.5, 2\.5 or 3\.5, 4\.5.*--pattern"):
        open_folder(twice)


def test_requested_names_without_positions_are_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"a\.png.*known are satellite_LAT_LON"):
        open_folder(folder("a.png"), FolderOptions("names"))
