"""A map is cut into tiles whose centres, sizes, headings and pixels are what the file says of them."""

import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from math import cos, radians
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import DEGREES, MERCATOR, UTM, picture, write_map
from rasterio import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import transform
from rasterio.windows import Window

from geodtr.runtime.errors import ConfigError, DataError, ImageError, MissingDependency, UserError
from geodtr.runtime.geodesy import distance
from geodtr.runtime.sources.geotiff import GeoTiff, GeoTiffOptions, open_geotiff
from geodtr.runtime.sources.opening import open_source
from geodtr.runtime.tile import Tile

_ORIGIN = {UTM: (600_000, 5_330_000), MERCATOR: (1_280_000, 6_130_000), DEGREES: (11.5, 48.13)}
"""A place near Munich, by reference system."""


def _upright(crs: str) -> Affine:
    """Pixels of 0.5 m, more or less: half a metre of the system, or of a degree."""
    pixel = (0.5 / 74_000, 0.5 / 111_000) if crs == DEGREES else (0.5, 0.5)
    return Affine.translation(*_ORIGIN[crs]) @ Affine.scale(pixel[0], -pixel[1])


MAPS = {
    "UTM": (UTM, _upright(UTM)),
    "Web Mercator": (MERCATOR, _upright(MERCATOR)),
    "degrees": (DEGREES, _upright(DEGREES)),
    "rotated": (UTM, Affine.translation(*_ORIGIN[UTM]) @ Affine.rotation(-30) @ Affine.scale(0.5, -0.5)),
    "upside down": (UTM, Affine.translation(*_ORIGIN[UTM]) @ Affine.scale(-0.5, 0.5)),
    "rows upwards": (UTM, Affine.translation(*_ORIGIN[UTM]) @ Affine.scale(0.5, 0.5)),
}


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
    """Metres on the sphere between two points of the map: within half a per cent of the ellipsoid's."""
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


def test_pixels_are_those_of_the_window(path: Path) -> None:
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
    x, y = _ORIGIN[UTM]
    down = write_map(tmp_path / "down.tif", pixels, UTM, Affine(0.5, 0, x, 0, -0.5, y))
    up = write_map(tmp_path / "up.tif", pixels[:, ::-1], UTM, Affine(0.5, 0, x, 0, 0.5, y - 100))
    first, second = (open_geotiff(each, GeoTiffOptions(100)) for each in (down, up))
    (a,), (b,) = first.tiles, second.tiles
    assert (a.lat, a.lon, a.heading) == pytest.approx((b.lat, b.lon, b.heading))
    np.testing.assert_array_equal(first.read(a).pixels, second.read(b).pixels)
    assert first.read(a).pixels[0, 0, 0] == 255


@pytest.mark.parametrize("lat", [0, 48, 70])
def test_web_mercators_metres_are_not_taken_for_the_grounds(tmp_path: Path, lat: float) -> None:
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
    turned = Affine.translation(*_ORIGIN[UTM]) @ Affine.rotation(angle) @ Affine.scale(0.5, -0.5)
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


def test_many_threads_read_what_one_does(path: Path) -> None:
    source = open_geotiff(path, GeoTiffOptions(40, 20))
    alone = [source.read(tile).pixels for tile in source.tiles]
    with ThreadPoolExecutor(8) as pool:
        for expected, read in zip(alone, pool.map(source.read, source.tiles), strict=True):
            np.testing.assert_array_equal(expected, read.pixels)


def _utm(path: Path, pixels: np.ndarray, **more: object) -> Path:
    return write_map(path, pixels, UTM, _upright(UTM), **more)


def test_a_size_in_pixels_is_kept_and_the_scale_follows(tmp_path: Path) -> None:
    source = open_geotiff(_utm(tmp_path / "map.tif", picture(400, 400)), GeoTiffOptions(100, tile_pixels=64))
    for tile in source.tiles:
        assert source.read(tile).pixels.shape == (64, 64, 3)
        assert tile.metres_per_pixel == pytest.approx(100 / 64, rel=0.005)


def test_what_shrinks_is_averaged_not_skipped(tmp_path: Path) -> None:
    """A chessboard of single pixels is grey from afar."""
    board = np.broadcast_to((np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8), (3, 400, 400))
    path = _utm(tmp_path / "map.tif", np.ascontiguousarray(board))
    source = open_geotiff(path, GeoTiffOptions(100, tile_pixels=25))
    pixels = source.read(source.tiles[0]).pixels
    assert abs(pixels.astype(int) - 127).max() < 20


def test_overviews_are_used_where_a_map_is_thinned_out(tmp_path: Path) -> None:
    path = _utm(tmp_path / "map.tif", np.zeros((3, 1024, 1024), np.uint8), tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([8], Resampling.average)
        file.write(np.full((3, 1024, 1024), 255, np.uint8))  # the overview stays black, which tells it from the map
    coarse = open_geotiff(path, GeoTiffOptions(500, tile_pixels=100))
    assert coarse.read(coarse.tiles[0]).pixels.max() == 0
    fine = open_geotiff(path, GeoTiffOptions(500))
    assert fine.read(fine.tiles[0]).pixels.min() == 255


@pytest.mark.parametrize("how", ["nodata", "alpha", "mask"])
def test_tiles_without_data_are_left_out_and_counted(tmp_path: Path, how: str) -> None:
    pixels = picture(400, 400)
    empty = np.zeros((400, 400), bool)
    empty[:, :130] = True
    pixels[:, empty] = 0
    if how == "alpha":
        alpha = np.where(empty, 0, 255).astype(np.uint8)[None]
        path = _utm(tmp_path / "map.tif", np.concatenate([pixels, alpha]), photometric="RGB", alpha="YES")
    elif how == "mask":
        path = _utm(tmp_path / "map.tif", pixels)
        with rasterio.open(path, "r+") as file:
            file.write_mask(~empty)
    else:
        path = _utm(tmp_path / "map.tif", pixels, nodata=0)
    # Four columns of tiles of 100 pixels: the first is empty, the second by 30 %.
    for most, left in ((0.2, 8), (0.35, 12), (1.0, 16)):
        source = open_geotiff(path, GeoTiffOptions(50, max_empty=most))
        assert len(source.tiles) == left
        assert ("left out" in " ".join(source.notes)) == (left < 16)
    only_empty = path.with_name("empty.tif")
    _utm(only_empty, np.zeros((3, 200, 200), np.uint8), nodata=0)
    with pytest.raises(DataError, match="--max-empty"):
        open_geotiff(only_empty, GeoTiffOptions(50))


def _only_tile(source: GeoTiff) -> np.ndarray:
    (tile,) = source.tiles
    return source.read(tile).pixels


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    grey = picture(100, 100, bands=1)
    pixels = _only_tile(open_geotiff(_utm(tmp_path / "map.tif", grey), GeoTiffOptions(50)))
    np.testing.assert_array_equal(pixels, np.repeat(grey[0, ..., None], 3, axis=2))


def test_bands_are_found_by_their_labels_or_asked_for(tmp_path: Path) -> None:
    four = picture(100, 100, bands=4)
    path = _utm(tmp_path / "map.tif", four)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    found = _only_tile(open_geotiff(path, GeoTiffOptions(50)))
    np.testing.assert_array_equal(found, four[[3, 2, 1]].transpose(1, 2, 0))
    asked = _only_tile(open_geotiff(path, GeoTiffOptions(50, bands=(4, 1, 2))))
    np.testing.assert_array_equal(asked, four[[3, 0, 1]].transpose(1, 2, 0))
    with pytest.raises(ConfigError, match="1 to 4"):
        open_geotiff(path, GeoTiffOptions(50, bands=(1, 2, 5)))


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    path = _utm(tmp_path / "map.tif", (picture(100, 100, bands=1) % 2).astype(np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 100, 0, 255)})
    colours = {tuple(colour) for colour in _only_tile(open_geotiff(path, GeoTiffOptions(50))).reshape(-1, 3).tolist()}
    assert colours == {(10, 20, 30), (200, 100, 0)}


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_deep_maps_are_scaled_only_when_it_is_said_how(tmp_path: Path, dtype: str) -> None:
    deep = np.linspace(0, 4000, 3 * 100 * 100).reshape(3, 100, 100).astype(dtype)
    if dtype == "float32":
        deep[0, 0, 0] = np.nan
    path = _utm(tmp_path / "map.tif", deep)
    with pytest.raises(DataError, match=f"{dtype}.*--stretch"):
        open_geotiff(path, GeoTiffOptions(50))
    pixels = _only_tile(open_geotiff(path, GeoTiffOptions(50, stretch=(1000, 3000))))
    expected = np.clip((np.nan_to_num(deep).astype(np.float64) - 1000) / 2000 * 255, 0, 255).transpose(1, 2, 0)
    assert np.abs(pixels - expected).max() <= 0.51


def test_bands_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = _utm(tmp_path / "map.tif", picture(100, 100, bands=2))
    with pytest.raises(DataError, match="2 bands"):
        open_geotiff(path, GeoTiffOptions(50))
    assert len(open_geotiff(path, GeoTiffOptions(50, bands=(2,))).tiles) == 1


def test_a_map_without_a_reference_system_or_a_position_is_refused(tmp_path: Path) -> None:
    nowhere = write_map(tmp_path / "nowhere.tif", picture(100, 100), None, _upright(UTM))
    with pytest.raises(DataError, match=r"coordinate reference system.*rio edit-info"):
        open_geotiff(nowhere, GeoTiffOptions(50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        plain = write_map(tmp_path / "plain.tif", picture(100, 100), UTM, Affine.identity())
    with pytest.raises(DataError, match="geotransform"):
        open_geotiff(plain, GeoTiffOptions(50))
    points = tmp_path / "points.tif"
    corners = [(0, 0), (0, 100), (100, 0), (100, 100)]
    gcps = [rasterio.control.GroundControlPoint(row, column, column, -row) for row, column in corners]
    with rasterio.open(points, "w", width=100, height=100, count=3, dtype="uint8", gcps=gcps, crs=UTM) as file:
        file.write(picture(100, 100))
    with pytest.raises(DataError, match="gdalwarp"):
        open_geotiff(points, GeoTiffOptions(50))


def test_a_sheared_map_and_a_tile_larger_than_the_map_are_refused(tmp_path: Path) -> None:
    sheared = _upright(UTM) @ Affine.shear(20)
    path = write_map(tmp_path / "sheared.tif", picture(200, 200), UTM, sheared)
    with pytest.raises(DataError, match="sheared"):
        open_geotiff(path, GeoTiffOptions(20))
    with pytest.raises(DataError, match=r"map\.tif: No tile of 500 m.*100 m high and 50 m wide"):
        open_geotiff(_utm(tmp_path / "map.tif", picture(100, 200)), GeoTiffOptions(500))


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    path = _utm(tmp_path / "map.tif", picture(400, 400))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"map\.tif"):
        _read_all(path)
    path.write_bytes(b"not a map")
    with pytest.raises(DataError, match=r"map\.tif is not a map"):
        open_geotiff(path, GeoTiffOptions(50))
    with pytest.raises(DataError, match="does not exist"):
        open_geotiff(tmp_path / "none.tif", GeoTiffOptions(50))


def _read_all(path: Path) -> list[Tile]:
    source = open_geotiff(path, GeoTiffOptions(50))
    for tile in source.tiles:
        source.read(tile)
    return list(source.tiles)


def test_a_map_that_ends_while_it_is_read_names_the_tile(tmp_path: Path) -> None:
    path = _utm(tmp_path / "map.tif", picture(400, 400), compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    source = open_geotiff(path, GeoTiffOptions(50))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    path.write_bytes(damaged)
    with pytest.raises(ImageError, match=r"map\.tif#"):
        for tile in source.tiles:
            source.read(tile)


def test_a_map_that_is_gone_when_it_is_read_is_named(tmp_path: Path) -> None:
    path = _utm(tmp_path / "map.tif", picture(100, 100))
    source = open_geotiff(path, GeoTiffOptions(50))
    path.unlink()
    with pytest.raises(ImageError, match=r"map\.tif does not exist"):
        source.read(source.tiles[0])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_tiles_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "flip.tif"
    path.unlink(missing_ok=True)
    whole = bytearray(_utm(path, picture(60, 60)).read_bytes())
    for place in data.draw(st.lists(st.integers(0, 600), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        tiles = _read_all(path)
    except UserError as error:
        assert "flip.tif" in str(error)
    else:
        assert all(abs(tile.lat or 0) <= 90 for tile in tiles)


def test_sheets_of_one_map_are_read_through_gdals_list_of_them(tmp_path: Path) -> None:
    path = _utm(tmp_path / "map.tif", picture(200, 200))
    rasterio.shutil.copy(path, tmp_path / "map.vrt", driver="VRT")
    direct, listed = (open_source(each, GeoTiffOptions(50)) for each in (path, tmp_path / "map.vrt"))
    for a, b in zip(direct.tiles, listed.tiles, strict=True):
        np.testing.assert_array_equal(direct.read(a).pixels, listed.read(b).pixels)


def test_without_rasterio_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _utm(tmp_path / "map.tif", picture(100, 100))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingDependency, match=r"geodtr-export\[geo\]"):
        open_geotiff(path, GeoTiffOptions(50))


@pytest.mark.parametrize(
    "options",
    [
        {"tile_metres": 0}, {"tile_metres": float("nan")}, {"tile_metres": 9, "stride_metres": -1},
        {"tile_metres": 9, "tile_pixels": 0}, {"tile_metres": 9, "bands": (1, 2)},
        {"tile_metres": 9, "stretch": (5, 5)}, {"tile_metres": 9, "max_empty": 1.5},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        GeoTiffOptions(**options)


def test_a_map_across_the_180th_meridian_and_one_to_the_pole_are_cut(tmp_path: Path) -> None:
    fiji = write_map(tmp_path / "fiji.tif", picture(300, 300), "EPSG:32760", Affine(10, 0, 816_000, 0, -10, 8_000_000))
    tiles = open_geotiff(fiji, GeoTiffOptions(500)).tiles
    assert min(tile.lon or 0 for tile in tiles) < -179.9
    assert max(tile.lon or 0 for tile in tiles) > 179.9
    assert {tile.more["window"][2] for tile in tiles} <= {49, 50, 51}
    world = write_map(tmp_path / "world.tif", picture(360, 180), DEGREES, Affine(1, 0, -180, 0, -1, 90))
    tiles = open_geotiff(world, GeoTiffOptions(2_000_000)).tiles
    assert all(abs(tile.lat or 0) < 90 for tile in tiles)


def test_the_documentations_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _utm(tmp_path / "ortho.tif", picture(200, 200))
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).resolve().parents[1] / "docs" / "galleries.md").read_text()
    names: dict[str, np.ndarray] = {}
    exec(page.split("```python")[1].split("```")[0], names)
    assert names["pixels"].shape == (120, 120, 3)
