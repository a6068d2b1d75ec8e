"""Maps whose rows and columns are not at right angles on the ground, at a pole, or across the 180th meridian."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from maps import DEGREES, UTM, picture, upright, write_map
from rasterio import Affine
from rasterio.enums import ColorInterp
from rasterio.warp import transform

from geodtr.runtime.geodesy import displacement, distance
from geodtr.runtime.sources.coverage import measure
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff

SKEWED = Affine(1.5239917e-05, 2.4923799e-06, -72.3966193, -3.9991892e-06, 1.3694983e-05, -14.1686882)
"""Degrees that were turned as if they were metres, as photogrammetry writes them."""


def test_a_map_in_turned_degrees_is_warped_and_its_corners_are_empty(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", picture(600, 600), DEGREES, SKEWED)
    source = open_geotiff(path, GeoTiffOptions(60))
    assert any("warped" in note for note in source.notes)
    assert any("left out" in note for note in source.notes)
    for tile in source.tiles:
        pixels = source.read(tile).pixels
        assert (pixels.sum(axis=2) == 0).mean() < 0.25
        assert tile.metres_per_pixel == pytest.approx(60 / max(pixels.shape[:2]), rel=0.02)
    sent = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(sent.read(sent.tiles[3]).pixels, source.read(source.tiles[3]).pixels)


def test_a_warped_tile_shows_what_lies_at_its_place(tmp_path: Path) -> None:
    """A white spot on black: the tile that shows it has it in its place."""
    pixels = np.full((3, 600, 600), 40, np.uint8)
    pixels[:, 295:306, 345:356] = 255
    path = write_map(tmp_path / "map.tif", pixels, DEGREES, SKEWED)
    lon, lat = SKEWED @ (350.5, 300.5)
    source = open_geotiff(path, GeoTiffOptions(120, 60))
    seen = 0
    for tile in source.tiles:
        image = source.read(tile).pixels[..., 0]
        rows, columns = np.nonzero(image > 200)
        if len(rows) < 60:
            continue
        seen += 1
        assert tile.lat is not None
        assert tile.lon is not None
        assert tile.heading is not None
        assert tile.metres_per_pixel is not None
        right = (columns.mean() + 0.5 - image.shape[1] / 2) * tile.metres_per_pixel
        up = (image.shape[0] / 2 - rows.mean() - 0.5) * tile.metres_per_pixel
        turned = np.radians(tile.heading)
        east, north = (
            right * np.cos(turned) + up * np.sin(turned),
            up * np.cos(turned) - right * np.sin(turned),
        )
        assert np.hypot(*(np.array(displacement(tile.lat, tile.lon, lat, lon)) - (east, north))) < 1.5
    assert seen


@pytest.mark.parametrize("how", ["nodata", "alpha", "palette"])
def test_what_marks_a_sheared_map_as_empty_survives_the_warp(tmp_path: Path, how: str) -> None:
    sheared = upright(UTM) @ Affine.shear(20)
    pixels = np.full((3, 400, 400), 90, np.uint8)
    pixels[:, :200] = 0
    path = tmp_path / "map.tif"
    if how == "alpha":
        alpha = np.where(pixels[:1] == 0, 0, 255).astype(np.uint8)
        write_map(path, np.concatenate([pixels, alpha]), UTM, sheared, photometric="RGB", alpha="YES")
    elif how == "nodata":
        write_map(path, pixels, UTM, sheared, nodata=0)
    else:
        write_map(path, (pixels[:1] > 0).astype(np.uint8), UTM, sheared, photometric="palette", nodata=0)
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {0: (1, 2, 3, 255), 1: (90, 90, 90, 255)})
    source = open_geotiff(path, GeoTiffOptions(25, max_empty=0))
    assert source.tiles
    for tile in source.tiles:
        assert np.abs(source.read(tile).pixels.astype(int) - 90).max() <= 1


def test_a_map_about_the_pole_is_cut_as_any_other(tmp_path: Path) -> None:
    path = write_map(tmp_path / "pole.tif", picture(200, 200), "EPSG:3413", Affine(50, 0, -5000, 0, -50, 5000))
    source = open_geotiff(path, GeoTiffOptions(500))
    scale = 10_000 / 500
    assert len(source.tiles) == pytest.approx(scale**2, rel=0.12)
    with rasterio.open(path) as dataset:
        for tile in source.tiles:
            column, row, width, height = tile.more["window"]
            x, y = dataset.transform @ (column + width / 2, row + height / 2)
            (lon,), (lat,) = transform("EPSG:3413", DEGREES, [x], [y])
            assert tile.lat is not None
            assert tile.lon is not None
            assert float(distance(lat, lon, tile.lat, tile.lon)) < 0.01
            assert 9 <= width <= 11
            # North is towards the pole, which is the map's middle.
            assert tile.heading is not None
            if np.hypot(x, y) > 100:
                turned = (tile.heading - np.degrees(np.arctan2(x, -y)) + 180) % 360 - 180
                assert abs(abs(turned) % 360) < 0.5
    coverage = measure(source.tiles)
    assert coverage.width_metres == pytest.approx(9_500 * 2**0.5, rel=0.5)
    assert coverage.spacing_metres == pytest.approx(485, rel=0.05)


@pytest.mark.parametrize(
    ("crs", "to_map"),
    [
        ("EPSG:32601", Affine(10, 0, 169_000, 0, -10, 1_000_000)),
        (DEGREES, Affine(1e-4, 0, 179.99, 0, -1e-4, 10)),
        (DEGREES, Affine(1e-4, 0, -180.01, 0, -1e-4, 10)),
    ],
)
def test_longitudes_stay_within_180_degrees(tmp_path: Path, crs: str, to_map: Affine) -> None:
    path = write_map(tmp_path / "map.tif", picture(300, 300), crs, to_map)
    source = open_geotiff(path, GeoTiffOptions(400))
    longitudes = np.array([tile.lon for tile in source.tiles])
    assert (np.abs(longitudes) <= 180).all()
    assert longitudes.min() < -179
    assert longitudes.max() > 179
    coverage = measure(source.tiles)
    assert coverage.frame is not None
    bounds = coverage.frame.bounds
    assert bounds["east"] < 0 < bounds["west"]
    assert (coverage.spacing_metres or 0) < 450


def test_several_bands_with_an_alpha_band_among_them_are_warped(tmp_path: Path) -> None:
    pixels = np.full((6, 300, 300), 3000, np.uint16)
    pixels[5] = 65535
    pixels[:, :, :150] = 0
    path = write_map(tmp_path / "map.tif", pixels, UTM, upright(UTM) @ Affine.shear(20))
    with rasterio.open(path, "r+") as file:
        grey = ColorInterp.gray
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, grey, grey, ColorInterp.alpha]
    source = open_geotiff(path, GeoTiffOptions(20, stretch=(0, 6000), max_empty=0))
    assert source.tiles
    for tile in source.tiles:
        assert np.abs(source.read(tile).pixels.astype(int) - 128).max() <= 1
