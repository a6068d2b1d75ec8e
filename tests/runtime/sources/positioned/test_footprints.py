"""Corners of tiles, in names and tables: their middle is the tile's place, and what does not fit is named."""

from pathlib import Path

import pytest
from PIL import Image

from geodtr.runtime.errors import DataError
from geodtr.runtime.geodesy import metres_per_degree
from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder
from geodtr.runtime.sources.positioned.footprint import Footprint

SOUTH, WEST, NORTH, EAST = 48.1, 11.5, 48.101, 11.502
HEIGHT = float(metres_per_degree(48.1005)[0]) * 0.001
WIDTH = float(metres_per_degree(48.1005)[1]) * 0.002


def _tile(path: Path) -> Path:
    """An image with square pixels on the ground."""
    Image.new("RGB", (round(200 * WIDTH / HEIGHT), 200)).save(path)
    return path


def test_two_corners_in_a_name_give_the_middle_and_the_scale(tmp_path: Path) -> None:
    _tile(tmp_path / f"@map@{WEST:.4f}@{SOUTH:.4f}@{EAST:.4f}@{NORTH:.4f}@.png")
    (tile,) = open_folder(tmp_path).tiles
    assert (tile.lat, tile.lon) == pytest.approx((48.1005, 11.501), abs=1e-9)
    assert tile.heading == pytest.approx(0)
    assert tile.metres_per_pixel == pytest.approx(HEIGHT / 200, rel=0.005)
    named = open_folder(tmp_path, FolderOptions(pattern="@*@{west}@{south}@{east}@{north}@"))
    assert list(named.tiles) == [tile]
    with pytest.raises(DataError, match=r"two corners.*\{west\}"):
        open_folder(tmp_path, FolderOptions(pattern="@map@{lon}@{lat}@*"))


@pytest.mark.parametrize(
    "text",
    [
        'Filename, "Top_left_lat", Top_left_lon, Bottom_right_lat, Bottom_right_long\n'
        f"a.png, {NORTH}, {WEST}, {SOUTH}, {EAST}\n",
        f"image,lower left latitude,lower left longitude,upper right latitude,UPPER-RIGHT-LONGITUDE\na.png,{SOUTH},"
        f"{WEST},{NORTH},{EAST}\n",
        "FILE;north;south;east;west\n".replace(";", ",") + f"a.png,{NORTH},{SOUTH},{EAST},{WEST}\n",
        f"file,tl_lat,tl_lon,tr_lat,tr_lon,br_lat,br_lon,bl_lat,bl_lon\na.png,{NORTH},{WEST},{NORTH},{EAST},{SOUTH},"
        f"{EAST},{SOUTH},{WEST}\n",
    ],
)
def test_a_table_of_corners_is_read_as_people_write_it(tmp_path: Path, text: str) -> None:
    _tile(tmp_path / "a.png")
    (tmp_path / "map.csv").write_text(text)
    source = open_folder(tmp_path, FolderOptions(tmp_path / "map.csv"))
    (tile,) = source.tiles
    assert (tile.lat, tile.lon) == pytest.approx((48.1005, 11.501), abs=1e-9)
    assert tile.heading == pytest.approx(0, abs=1e-6)
    assert tile.metres_per_pixel == pytest.approx(HEIGHT / 200, rel=0.005)
    assert "file by" in source.notes[0]


def test_a_turned_footprint_gives_its_heading() -> None:
    """The upper edge of an image that is turned to the east is on the east."""
    turned = Footprint(
        above_left=(NORTH, EAST), above_right=(SOUTH, EAST), below_right=(SOUTH, WEST), below_left=(NORTH, WEST)
    )
    assert turned.heading == pytest.approx(90, abs=0.01)
    assert turned.centre == pytest.approx((48.1005, 11.501))


def test_a_box_across_the_180th_meridian_has_its_middle_there() -> None:
    lat, lon = Footprint.north_up(-17, 179.9, -16.9, -179.7, "a").centre
    assert (lat, lon) == pytest.approx((-16.95, -179.9))


_TWO = "file,top_left_lat,top_left_lon,bottom_right_lat,bottom_right_lon\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_TWO + f"a.png,{SOUTH},{WEST},{NORTH},{EAST}\n", "south must be below north"),
        (_TWO + f"a.png,{NORTH},{WEST},{SOUTH},\n", "line 2: give both latitude and longitude"),
        (_TWO + f"a.png,{NORTH},{WEST},,\n", "line 2: give all corners"),
        (_TWO + f"a.png,{NORTH},{WEST},{SOUTH},{WEST + 0.02}\n", "one does not fit the other"),
        (_TWO + "a.png,91,1,2,3\n", "lat is 91"),
        ("file,top_left_lat,top_left_lon\na.png,1,2\n", "no whole footprint"),
        ("file,top_left_lat,top_left_lon,bottom_right_lat\na.png,1,2,3\n", "no whole footprint"),
        ("file,west,south\na.png,1,2\n", "no whole footprint"),
        ("file,lat,lon,west,south,east,north\na.png,1,2,1,2,3,4\n", "by a centre and by edges"),
    ],
)
def test_wrong_corners_are_named(tmp_path: Path, text: str, message: str) -> None:
    _tile(tmp_path / "a.png")
    (tmp_path / "tiles.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


def test_rows_without_corners_have_no_position(tmp_path: Path) -> None:
    for name in "ab":
        _tile(tmp_path / f"{name}.png")
    (tmp_path / "tiles.csv").write_text(_TWO + f"a.png,{NORTH},{WEST},{SOUTH},{EAST}\nb.png,,,,\n")
    a, b = open_folder(tmp_path).tiles
    assert a.lat is not None
    assert (b.lat, b.lon, b.heading, b.metres_per_pixel) == (None, None, None, None)
