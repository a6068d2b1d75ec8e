"""A map is cut into tiles whose centres, sizes, headings and pixels match the file."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from math import cos, radians
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import DEGREES, MAPS, MERCATOR, ORIGIN, UTM, picture, utm_map, write_map
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.warp import transform
from rasterio.windows import Window

from geodtr.runtime.geodesy import distance
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.registry import open_source


@pytest.fixture(params=MAPS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    crs, to_map = MAPS[request.param]
    return write_map(tmp_path / "map.tif", picture(700, 500), crs, to_map)


def _place(dataset: rasterio.DatasetReader, column: float, row: float) -> tuple[float, float]:
    """Latitude and longitude of a point of the map, by rasterio's own way."""
    x, y = dataset.xy(row, column, offset="ul")
    (lon,), (lat,) = transform(dataset.crs, DEGREES, [x], [y])
    return lat, lon


def _ground(dataset: rasterio.DatasetReader, *points: tuple[float, float]) -> float:
    """Metres between two points of the map."""
    (lat_a, lon_a), (lat_b, lon_b) = (_place(dataset, *point) for point in points)
    return float(distance(lat_a, lon_a, lat_b, lon_b))


def test_centres_sizes_and_headings_are_the_files_own(path: Path) -> None:
    source = open_geotiff(path, GeoTiffOptions(60, 45))
    with rasterio.open(path) as dataset:
        for tile in source.tiles:
            column, row, width, height = tile.more["window"]
            x, y = column + width / 2, row + height / 2
            assert (tile.lat, tile.lon) == pytest.approx(_place(dataset, x, y), abs=1e-9)
            assert _ground(dataset, (column, y), (column + width, y)) == pytest.approx(60, abs=0.6)
            assert _ground(dataset, (x, row), (x, row + height)) == pytest.approx(60, abs=0.6)
            up = row + height if tile.more.get("flipped") else row
            (lat_a, lon_a), (lat_b, lon_b) = _place(dataset, x, y), _place(dataset, x, up)
            east, north = (lon_b - lon_a) * cos(radians(lat_a)), lat_b - lat_a
            assert tile.heading is not None
            turned = (np.degrees(np.arctan2(east, north)) - tile.heading + 180) % 360 - 180
            assert abs(turned) < 0.3
            assert tile.metres_per_pixel == pytest.approx(60 / max(width, height), rel=0.01)


def test_pixels_are_equal_to_the_window(path: Path) -> None:
    source = open_geotiff(path, GeoTiffOptions(60))
    with rasterio.open(path) as dataset:
        for tile in source.tiles[::5]:
            column, row, width, height = tile.more["window"]
            side = max(width, height)
            expected = dataset.read(
                window=Window(column, row, width, height), out_shape=(3, side, side), resampling=Resampling.bilinear
            ).transpose(1, 2, 0)
            pixels = source.read(tile).pixels
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, expected[::-1] if tile.more.get("flipped") else expected)


def test_another_process_reads_the_tiles_of_a_source_that_was_sent_to_it(path: Path) -> None:
    source = open_source(path, GeoTiffOptions(60, 45))
    expected = source.read(source.tiles[-1]).pixels
    sent = pickle.loads(pickle.dumps(source))
    assert (sent.name, list(sent.tiles)) == (source.name, list(source.tiles))
    np.testing.assert_array_equal(sent.read(sent.tiles[-1]).pixels, expected)


def test_the_tile_that_is_north_up_shows_the_north_above(tmp_path: Path) -> None:
    """A map whose northern half is white, stored with its rows in either order, gives the same tile."""
    pixels = np.zeros((3, 200, 200), np.uint8)
    pixels[:, :100] = 255
    x, y = ORIGIN[UTM]
    down = write_map(tmp_path / "down.tif", pixels, UTM, Affine(0.5, 0, x, 0, -0.5, y))
    up = write_map(tmp_path / "up.tif", pixels[:, ::-1], UTM, Affine(0.5, 0, x, 0, 0.5, y - 100))
    first, second = (open_geotiff(each, GeoTiffOptions(100)) for each in (down, up))
    (a,), (b,) = first.tiles, second.tiles
    assert (a.lat, a.lon, a.heading) == pytest.approx((b.lat, b.lon, b.heading))
    np.testing.assert_array_equal(first.read(a).pixels, second.read(b).pixels)
    assert first.read(a).pixels[0, 0, 0] == 255


@pytest.mark.parametrize("lat", [0, 48, 70])
def test_web_mercator_metres_are_not_taken_for_metres_on_the_ground(tmp_path: Path, lat: float) -> None:
    (x,), (y,) = transform(DEGREES, MERCATOR, [11.5], [lat])
    path = write_map(tmp_path / "map.tif", picture(400, 400), MERCATOR, Affine(1, 0, x, 0, -1, y))
    tile = open_geotiff(path, GeoTiffOptions(50)).tiles[0]
    assert tile.more["window"][2] == pytest.approx(50 / cos(radians(lat)), rel=0.02)


def test_utms_scale_on_its_central_meridian_is_the_ellipsoids(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", picture(400, 400), UTM, Affine(1, 0, 499_800, 0, -1, 5_330_000))
    tile = open_geotiff(path, GeoTiffOptions(100)).tiles[0]
    assert tile.metres_per_pixel == pytest.approx(1 / 0.9996, abs=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(120, 400),
    height=st.integers(120, 400),
    tile=st.floats(5, 50),
    stride=st.floats(4, 60),
    angle=st.floats(0, 360),
)
def test_tiles_reach_every_edge_at_most_a_stride_apart(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, tile: float, stride: float, angle: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tif"
    turned = Affine.translation(*ORIGIN[UTM]) @ Affine.rotation(angle) @ Affine.scale(0.5, -0.5)
    write_map(path, np.zeros((1, height, width), np.uint8), UTM, turned)
    tiles = open_geotiff(path, GeoTiffOptions(tile, stride)).tiles
    assert len({each.id for each in tiles}) == len(tiles)
    windows = np.array([each.more["window"] for each in tiles])
    for start, size, end in ((0, 2, width), (1, 3, height)):
        first = np.unique(windows[:, start])
        assert first[0] == 0
        assert (windows[:, start] + windows[:, size]).max() == end
        assert np.diff(first).max(initial=0) <= stride / 0.5 + 0.005 * end + 1.5


def test_ids_stay_when_the_map_is_opened_again(path: Path) -> None:
    first, second = (open_geotiff(path, GeoTiffOptions(40, 25)) for _ in range(2))
    assert list(first.tiles) == list(second.tiles)


def test_many_threads_read_the_same_pixels_as_one(path: Path) -> None:
    source = open_geotiff(path, GeoTiffOptions(40, 20))
    alone = [source.read(tile).pixels for tile in source.tiles]
    with ThreadPoolExecutor(8) as pool:
        for expected, read in zip(alone, pool.map(source.read, source.tiles), strict=True):
            np.testing.assert_array_equal(expected, read.pixels)


def test_a_size_in_pixels_is_kept_and_the_scale_follows(tmp_path: Path) -> None:
    source = open_geotiff(utm_map(tmp_path / "map.tif", picture(400, 400)), GeoTiffOptions(100, tile_pixels=64))
    for tile in source.tiles:
        assert source.read(tile).pixels.shape == (64, 64, 3)
        assert tile.metres_per_pixel == pytest.approx(100 / 64, rel=0.005)


def test_what_shrinks_is_averaged_not_skipped(tmp_path: Path) -> None:
    """A chessboard of single pixels is grey from afar."""
    board = np.broadcast_to((np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8), (3, 400, 400))
    path = utm_map(tmp_path / "map.tif", np.ascontiguousarray(board))
    source = open_geotiff(path, GeoTiffOptions(100, tile_pixels=25))
    pixels = source.read(source.tiles[0]).pixels
    assert abs(pixels.astype(int) - 127).max() < 20


def test_overviews_are_used_where_a_map_is_thinned_out(tmp_path: Path) -> None:
    path = utm_map(
        tmp_path / "map.tif", np.zeros((3, 1024, 1024), np.uint8), tiled=True, blockxsize=256, blockysize=256
    )
    with rasterio.open(path, "r+") as file:
        file.build_overviews([8], Resampling.average)
        file.write(np.full((3, 1024, 1024), 255, np.uint8))  # the overview stays black, unlike the map
    coarse = open_geotiff(path, GeoTiffOptions(500, tile_pixels=100))
    assert coarse.read(coarse.tiles[0]).pixels.max() == 0
    fine = open_geotiff(path, GeoTiffOptions(500))
    assert fine.read(fine.tiles[0]).pixels.min() == 255


def test_sheets_of_one_map_are_read_through_gdals_list_of_them(tmp_path: Path) -> None:
    path = utm_map(tmp_path / "map.tif", picture(200, 200))
    rasterio.shutil.copy(path, tmp_path / "map.vrt", driver="VRT")
    direct, listed = (open_source(each, GeoTiffOptions(50)) for each in (path, tmp_path / "map.vrt"))
    for a, b in zip(direct.tiles, listed.tiles, strict=True):
        np.testing.assert_array_equal(direct.read(a).pixels, listed.read(b).pixels)


def test_a_map_across_the_180th_meridian_and_one_to_the_pole_are_cut(tmp_path: Path) -> None:
    fiji = write_map(tmp_path / "fiji.tif", picture(300, 300), "EPSG:32760", Affine(10, 0, 816_000, 0, -10, 8_000_000))
    tiles = open_geotiff(fiji, GeoTiffOptions(500)).tiles
    assert min(tile.lon or 0 for tile in tiles) < -179.9
    assert max(tile.lon or 0 for tile in tiles) > 179.9
    assert {tile.more["window"][2] for tile in tiles} <= {49, 50, 51}
    world = write_map(tmp_path / "world.tif", picture(360, 180), DEGREES, Affine(1, 0, -180, 0, -1, 90))
    tiles = open_geotiff(world, GeoTiffOptions(2_000_000)).tiles
    assert all(abs(tile.lat or 0) < 90 for tile in tiles)
