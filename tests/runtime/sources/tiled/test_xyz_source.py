"""A folder of map tiles: tile numbers become positions and metres, as in web maps."""

from collections.abc import Callable, Iterable
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import DEGREES, MERCATOR
from PIL import Image
from rasterio.warp import transform

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.geodesy import distance
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tiled.slippy import MAX_ZOOM, XyzOptions, metres_per_pixel, place
from geodtr.runtime.sources.tiled.xyz import open_xyz

HALF = 6_378_137 * pi
"""Metres from the middle of Web Mercator to its edge."""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Map tiles of zoom 17 with these numbers, each of its own colour."""

    def make(numbers: Iterable[tuple[int, int]], zoom: int = 17, suffix: str = "png", side: int = 16) -> Path:
        for x, y in numbers:
            path = tmp_path / "map" / str(zoom) / str(x) / f"{y}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side, side), (x % 256, y % 256, 7)).save(path)
        return tmp_path / "map"

    return make


def _block(x: int, y: int, width: int, height: int) -> list[tuple[int, int]]:
    return [(x + right, y + down) for right in range(width) for down in range(height)]


@settings(max_examples=100, deadline=None)
@given(zoom=st.integers(0, 22), data=st.data())
def test_positions_match_the_projection(zoom: int, data: st.DataObject) -> None:
    """By PROJ's Web Mercator, whose world is a square of 2 pi a metres, which the tiles divide."""
    x, y = (data.draw(st.integers(0, 2**zoom - 1)) + 0.5 for _ in range(2))
    size = 2 * HALF / 2**zoom
    (lon,), (lat,) = transform(MERCATOR, DEGREES, [x * size - HALF], [HALF - y * size])
    assert place(x, y, zoom) == pytest.approx((lat, lon), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(zoom=st.integers(8, MAX_ZOOM), data=st.data())
def test_metres_match_the_distance_between_the_edges_of_a_tile(zoom: int, data: st.DataObject) -> None:
    x, y = (data.draw(st.integers(2**zoom // 8, 2**zoom * 7 // 8)) for _ in range(2))
    (lat, west), (_, east) = place(x, y + 0.5, zoom), place(x + 1, y + 0.5, zoom)
    (north, lon), (south, _) = place(x + 0.5, y, zoom), place(x + 0.5, y + 1, zoom)
    sides = distance(lat, west, lat, east), distance(north, lon, south, lon)
    assert metres_per_pixel(lat, zoom, 256) == pytest.approx(float(sum(sides)) / 512, rel=1e-4, abs=1e-9)


def test_a_known_tile_has_its_known_position() -> None:
    """The tile of mercantile's documentation, and the size of a pixel at the equator, by the radii of curvature."""
    assert place(486, 332, 10) == pytest.approx((53.33087298301705, -9.140625))
    assert metres_per_pixel(0, 0, 256) == pytest.approx(pi * (6_378_137 + 6_335_439.327) / 256)


def test_tiles_have_positions(folder: Callable[..., Path]) -> None:
    source = open_source(folder(_block(100, 200, 3, 2)))
    assert [tile.id for tile in source.tiles][:3] == ["17/100/200", "17/100/201", "17/101/200"]
    assert len(source.tiles) == 6
    first = source.tiles[0]
    assert (first.lat, first.lon) == place(100.5, 200.5, 17)
    assert first.heading == 0
    assert first.metres_per_pixel == metres_per_pixel(first.lat or 0, 17, 16)
    assert first.more == {"zoom": 17, "x": 100, "y": 200}
    assert source.read(first).pixels[0, 0].tolist() == [100, 200, 7]
    assert "zoom 17" in source.notes[0]


def test_y_may_count_from_the_south(folder: Callable[..., Path]) -> None:
    root = folder([(5, 2)], zoom=3)
    (south,) = open_xyz(root, XyzOptions(tms=True)).tiles
    assert (south.id, south.lat, south.lon) == ("3/5/5", *place(5.5, 5.5, 3))
    assert south.file.endswith("/3/5/2.png")
    assert open_xyz(root).tiles[0].lat == -(south.lat or 0)


@pytest.mark.parametrize(("step", "count"), [(None, 4), (1, 9), (2, 4)])
def test_neighbours_become_one_reference(folder: Callable[..., Path], step: int | None, count: int) -> None:
    root = folder(_block(10, 20, 4, 4))
    source = open_xyz(root, XyzOptions(merge=2, step=step))
    assert len(source.tiles) == count == len({tile.id for tile in source.tiles})
    first = source.tiles[0]
    assert (first.id, first.lat, first.lon) == ("17/10/20+2", *place(11, 21, 17))
    pixels = source.read(first).pixels
    assert pixels.shape == (32, 32, 3)
    corners = pixels[[0, 0, 31, 31], [0, 31, 0, 31], :2].tolist()
    assert corners == [[10, 20], [11, 20], [10, 21], [11, 21]]
    assert first.metres_per_pixel == pytest.approx(metres_per_pixel(first.lat or 0, 17, 16))


def test_merged_tiles_that_count_from_the_south_are_upright(folder: Callable[..., Path]) -> None:
    source = open_xyz(folder(_block(0, 0, 2, 2), zoom=1), XyzOptions(tms=True, merge=2))
    assert source.read(source.tiles[0]).pixels[[0, 31], 0, 1].tolist() == [1, 0]


def test_references_that_lack_a_tile_are_left_out_and_counted(folder: Callable[..., Path]) -> None:
    root = folder([at for at in _block(10, 20, 4, 2) if at != (11, 21)])
    source = open_xyz(root, XyzOptions(merge=2))
    assert [tile.id for tile in source.tiles] == ["17/12/20+2"]
    assert any("1 references are left out" in note for note in source.notes)
    with pytest.raises(DataError, match="3 x 3"):
        open_xyz(root, XyzOptions(merge=3))


def test_a_merged_reference_of_too_many_pixels_is_refused(folder: Callable[..., Path]) -> None:
    root = folder(_block(0, 0, 3, 3), side=3000)
    assert len(open_xyz(root, XyzOptions(merge=2)).tiles) == 1
    with pytest.raises(DataError, match=r"9000 pixels wide; allowed are up to 8192\. Merge fewer"):
        open_xyz(root, XyzOptions(merge=3))


def test_one_of_several_zooms_is_chosen(folder: Callable[..., Path]) -> None:
    folder([(1, 1)], zoom=3)
    root = folder([(2, 2)], zoom=4)
    with pytest.raises(DataError, match=r"zooms 3, 4; choose one: --zoom"):
        open_xyz(root)
    assert open_xyz(root, XyzOptions(zoom=4)).tiles[0].id == "4/2/2"
    with pytest.raises(DataError, match="there is no 5"):
        open_xyz(root, XyzOptions(zoom=5))


def test_broken_names_are_reported(folder: Callable[..., Path]) -> None:
    root = folder([(1, 1), (2, 2)], zoom=3)
    for name in ("1/08.png", "1/8.png", "1/two.png", "1/2.txt", "notes.txt", "9/1.png", ".hidden"):
        (root / "3" / name).parent.mkdir(exist_ok=True)
        (root / "3" / name).touch()
    source = open_xyz(root)
    assert len(source.tiles) == 2
    (note,) = (note for note in source.notes if "left out" in note)
    assert note.startswith("6 files are left out")
    assert "08.png" in note


def test_two_images_of_one_tile_are_refused(folder: Callable[..., Path]) -> None:
    folder([(1, 1)], zoom=3)
    with pytest.raises(DataError, match=r"1\.jpg and .*1\.png are one and the same"):
        open_xyz(folder([(1, 1)], zoom=3, suffix="jpg"))


def test_an_image_of_another_size_or_shape_is_named(folder: Callable[..., Path]) -> None:
    root = folder([(1, 1), (1, 2)], zoom=3)
    Image.new("RGB", (32, 32)).save(root / "3/1/2.png")
    source = open_xyz(root)
    with pytest.raises(ImageError, match=r"2\.png has 32x32 pixels, the first tile 16x16"):
        source.read(source.tiles[1])
    Image.new("RGB", (32, 16)).save(root / "3/1/1.png")
    with pytest.raises(ImageError, match=r"1\.png has 32x16 pixels; a map tile is square"):
        open_xyz(root)
    (root / "3/1/1.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1\.png"):
        open_xyz(root)


def test_a_folder_without_tiles_is_named(tmp_path: Path) -> None:
    (tmp_path / "3" / "1").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no map tiles"):
        open_source(tmp_path)
    (tmp_path / "3" / "1" / "a.png").touch()
    with pytest.raises(DataError, match=r"1 other files: .*a\.png"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="no folders Z/X"):
        open_xyz(tmp_path / "3" / "1")


def test_an_ambiguous_folder_is_refused(folder: Callable[..., Path]) -> None:
    root = folder([(1, 1)], zoom=3)
    Image.new("RGB", (16, 16)).save(root / "overview.png")
    with pytest.raises(DataError, match="--zoom"):
        open_source(root)
    assert open_source(root, XyzOptions(zoom=3)).tiles[0].id == "3/1/1"


@pytest.mark.parametrize("options", [{"zoom": -1}, {"zoom": 31}, {"merge": 0}, {"merge": 17}, {"merge": 2, "step": 3}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        XyzOptions(**options)


@settings(max_examples=50, deadline=None)
@given(
    numbers=st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1),
    merge=st.integers(1, 3),
    data=st.data(),
)
def test_every_reference_is_complete_and_unique(
    tmp_path_factory: pytest.TempPathFactory, numbers: set[tuple[int, int]], merge: int, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("any")
    for x, y in numbers:
        (root / "3" / str(x)).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 8 * x + y).save(root / "3" / str(x) / f"{y}.png")
    step = data.draw(st.integers(1, merge))
    try:
        source = open_xyz(root, XyzOptions(merge=merge, step=step))
    except DataError:
        assert merge > 1
        return
    assert len({tile.id for tile in source.tiles}) == len(source.tiles)
    for tile in source.tiles:
        x, y = tile.more["x"], tile.more["y"]
        expected = [[8 * (x + right) + y + down for right in range(merge)] for down in range(merge)]
        np.testing.assert_array_equal(source.read(tile).pixels[::4, ::4, 0], expected)
