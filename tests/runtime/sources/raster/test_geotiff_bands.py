"""A map's bands become 8-bit RGB by its labels, its palette or the user's choice; empty tiles are left out."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from maps import picture, utm_map
from rasterio.enums import ColorInterp

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import GeoTiff, open_geotiff


@pytest.mark.parametrize("how", ["nodata", "alpha", "mask"])
def test_tiles_without_data_are_left_out_and_counted(tmp_path: Path, how: str) -> None:
    pixels = picture(400, 400)
    empty = np.zeros((400, 400), bool)
    empty[:, :130] = True
    pixels[:, empty] = 0
    if how == "alpha":
        alpha = np.where(empty, 0, 255).astype(np.uint8)[None]
        path = utm_map(tmp_path / "map.tif", np.concatenate([pixels, alpha]), photometric="RGB", alpha="YES")
    elif how == "mask":
        path = utm_map(tmp_path / "map.tif", pixels)
        with rasterio.open(path, "r+") as file:
            file.write_mask(~empty)
    else:
        path = utm_map(tmp_path / "map.tif", pixels, nodata=0)
    # Four columns of tiles of 100 pixels: the first is empty, the second by 30 %.
    for most, left in ((0.2, 8), (0.35, 12), (1.0, 16)):
        source = open_geotiff(path, GeoTiffOptions(50, max_empty=most))
        assert len(source.tiles) == left
        assert ("left out" in " ".join(source.notes)) == (left < 16)
    only_empty = path.with_name("empty.tif")
    utm_map(only_empty, np.zeros((3, 200, 200), np.uint8), nodata=0)
    with pytest.raises(DataError, match="--max-empty"):
        open_geotiff(only_empty, GeoTiffOptions(50))


def test_an_alpha_band_counts_wherever_it_stands(tmp_path: Path) -> None:
    """Multispectral orthophotos have it last of five or six bands, where GDAL takes it for one more colour."""
    pixels = picture(600, 600, bands=6).astype(np.uint16) * 100
    pixels[5] = 65535
    pixels[:, :, :300] = 0
    path = utm_map(tmp_path / "map.tif", pixels)
    with rasterio.open(path, "r+") as file:
        grey = ColorInterp.gray
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, grey, grey, ColorInterp.alpha]
    source = open_geotiff(path, GeoTiffOptions(50, stretch=(0, 25_000)))
    assert len(source.tiles) == 18
    assert source.bands.indexes == (1, 2, 3)


@pytest.mark.parametrize("opaque", [False, True])
def test_a_black_border_that_is_not_marked_is_reported_and_left_out_on_request(tmp_path: Path, opaque: bool) -> None:
    """With an alpha band that calls all of it data as well."""
    pixels = picture(600, 600, bands=4 if opaque else 3)
    columns, rows = np.indices((600, 600))
    pixels[:, columns + rows < 300] = 0
    path = tmp_path / "map.tif"
    if opaque:
        pixels[3] = 255
        utm_map(path, pixels, photometric="RGB", alpha="YES")
    else:
        utm_map(path, pixels)
    source = open_geotiff(path, GeoTiffOptions(50))
    assert len(source.tiles) == 36
    assert "--nodata 0" in source.notes[-1]
    dropped = open_geotiff(path, GeoTiffOptions(50, nodata=0))
    assert len(dropped.tiles) == 30
    assert not any("--nodata" in note for note in dropped.notes)
    for tile in dropped.tiles:
        assert (dropped.read(tile).pixels.sum(axis=2) == 0).mean() < 0.25
    assert not any("black" in note for note in open_geotiff(_noise(tmp_path), GeoTiffOptions(50)).notes)


def _noise(folder: Path) -> Path:
    return utm_map(folder / "noise.tif", picture(600, 600))


def _only_tile(source: GeoTiff) -> np.ndarray:
    (tile,) = source.tiles
    return source.read(tile).pixels


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    grey = picture(100, 100, bands=1)
    pixels = _only_tile(open_geotiff(utm_map(tmp_path / "map.tif", grey), GeoTiffOptions(50)))
    np.testing.assert_array_equal(pixels, np.repeat(grey[0, ..., None], 3, axis=2))


def test_bands_are_found_by_their_labels_or_selected(tmp_path: Path) -> None:
    four = picture(100, 100, bands=4)
    path = utm_map(tmp_path / "map.tif", four)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    default = _only_tile(open_geotiff(path, GeoTiffOptions(50)))
    np.testing.assert_array_equal(default, four[[3, 2, 1]].transpose(1, 2, 0))
    selected = _only_tile(open_geotiff(path, GeoTiffOptions(50, bands=(4, 1, 2))))
    np.testing.assert_array_equal(selected, four[[3, 0, 1]].transpose(1, 2, 0))
    with pytest.raises(ConfigError, match="1 to 4"):
        open_geotiff(path, GeoTiffOptions(50, bands=(1, 2, 5)))


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    path = utm_map(tmp_path / "map.tif", (picture(100, 100, bands=1) % 2).astype(np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 100, 0, 255)})
    colours = {tuple(colour) for colour in _only_tile(open_geotiff(path, GeoTiffOptions(50))).reshape(-1, 3).tolist()}
    assert colours == {(10, 20, 30), (200, 100, 0)}


def test_a_palette_of_16_bits_is_resolved_and_takes_no_stretch(tmp_path: Path) -> None:
    indexes = (picture(100, 100, bands=1) % 2).astype(np.uint16) * 300
    path = utm_map(tmp_path / "map.tif", indexes, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 20, 30, 255), 300: (200, 100, 0, 255)})
    colours = {tuple(colour) for colour in _only_tile(open_geotiff(path, GeoTiffOptions(50))).reshape(-1, 3).tolist()}
    assert colours == {(10, 20, 30), (200, 100, 0)}
    with pytest.raises(ConfigError, match=r"colour table.*--stretch"):
        open_geotiff(path, GeoTiffOptions(50, stretch=(0, 3)))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_deep_maps_are_scaled_only_with_given_limits(tmp_path: Path, dtype: str) -> None:
    deep = np.linspace(0, 4000, 3 * 100 * 100).reshape(3, 100, 100).astype(dtype)
    if dtype == "float32":
        deep[0, 0, 0] = np.nan
    path = utm_map(tmp_path / "map.tif", deep)
    with pytest.raises(DataError, match=f"{dtype}.*--stretch"):
        open_geotiff(path, GeoTiffOptions(50))
    pixels = _only_tile(open_geotiff(path, GeoTiffOptions(50, stretch=(1000, 3000))))
    expected = np.clip((np.nan_to_num(deep).astype(np.float64) - 1000) / 2000 * 255, 0, 255).transpose(1, 2, 0)
    assert np.abs(pixels - expected).max() <= 0.51


def test_bands_that_say_nothing_are_refused(tmp_path: Path) -> None:
    path = utm_map(tmp_path / "map.tif", picture(100, 100, bands=2))
    with pytest.raises(DataError, match="2 bands"):
        open_geotiff(path, GeoTiffOptions(50))
    assert len(open_geotiff(path, GeoTiffOptions(50, bands=(2,))).tiles) == 1
