"""Maps that lack data, are damaged, or change while they are read are refused by name; large ones need no memory."""

import os
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import rasterio
import rasterio.shutil
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import UTM, picture, upright, utm_map, write_map
from rasterio import Affine
from rasterio.windows import Window

from geodtr import UserError
from geodtr.runtime.errors import ConfigError, DataError, ImageError, MissingDependency
from geodtr.runtime.installation import install_hint
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.tile import Tile


def test_a_map_without_a_reference_system_or_a_position_is_refused(tmp_path: Path) -> None:
    nowhere = write_map(tmp_path / "nowhere.tif", picture(100, 100), None, upright(UTM))
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


def test_a_tile_larger_than_the_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"map\.tif: No tile of 500 m.*100 m high and 50 m wide"):
        open_geotiff(utm_map(tmp_path / "map.tif", picture(100, 200)), GeoTiffOptions(500))


def test_a_damaged_map_is_named(tmp_path: Path) -> None:
    path = utm_map(tmp_path / "map.tif", picture(400, 400))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"map\.tif"):
        _read_all(path)
    path.write_bytes(b"not a map")
    with pytest.raises(DataError, match=r"map\.tif is not a map"):
        open_geotiff(path, GeoTiffOptions(50))
    with pytest.raises(DataError, match="is not a file"):
        open_geotiff(tmp_path / "none.tif", GeoTiffOptions(50))


def _read_all(path: Path) -> list[Tile]:
    source = open_geotiff(path, GeoTiffOptions(50))
    for tile in source.tiles:
        source.read(tile)
    return list(source.tiles)


def test_a_map_that_ends_while_it_is_read_names_the_tile(tmp_path: Path) -> None:
    path = utm_map(
        tmp_path / "map.tif", picture(400, 400), compress="deflate", tiled=True, blockxsize=64, blockysize=64
    )
    source = open_geotiff(path, GeoTiffOptions(50))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    path.write_bytes(damaged)
    with pytest.raises(ImageError, match=r"map\.tif#"):
        for tile in source.tiles:
            source.read(tile)


def test_a_map_that_is_gone_when_it_is_read_is_named(tmp_path: Path) -> None:
    path = utm_map(tmp_path / "map.tif", picture(100, 100))
    source = open_geotiff(path, GeoTiffOptions(50))
    path.unlink()
    with pytest.raises(ImageError, match=r"map\.tif is not a file"):
        source.read(source.tiles[0])


@pytest.mark.parametrize("name", ["map.tif.aux.xml", "map.aux", "map.xml", "map.tfw", "map.TFW", "map.tif.ovr"])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_a_pipe_or_device_that_gdal_would_read_with_a_map_is_named(tmp_path: Path, name: str, target: str) -> None:
    path = utm_map(tmp_path / "map.tif", picture(60, 60))
    os.mkfifo(tmp_path / "other.xml")  # no map's
    assert len(open_geotiff(path, GeoTiffOptions(30)).tiles) == 1
    if target == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(target)
    with pytest.raises(DataError, match=re.escape(f"{name} is a pipe or a device")):
        open_geotiff(path, GeoTiffOptions(30))


@pytest.mark.parametrize("name", ["map.tif", "map.tif.ovr"])
@pytest.mark.parametrize("number", [3, 54_914])
def test_a_tag_that_gdal_does_not_know_is_no_fault_or_is_named(tmp_path: Path, name: str, number: int) -> None:
    """GDAL reports some of them only where it is asked for something else."""
    path = utm_map(tmp_path / "map.tif", picture(60, 60))
    utm_map(tmp_path / "map.tif.ovr", picture(30, 30))
    whole = (tmp_path / name).read_bytes()
    (start,) = struct.unpack("<I", whole[4:8])
    (tags,) = struct.unpack("<H", whole[start : start + 2])
    for tag in range(tags):
        at = start + 2 + 12 * tag
        for changed in (struct.pack("<H", number) + whole[at + 2 : at + 4], whole[at : at + 2] + b"\0\0"):
            (tmp_path / name).write_bytes(whole[:at] + changed + whole[at + 4 :])
            try:
                source = open_geotiff(path, GeoTiffOptions(30))
                source.read(source.tiles[0])
            except UserError as error:
                assert "map.tif" in str(error)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_tiles_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "flip.tif"
    path.unlink(missing_ok=True)
    whole = bytearray(utm_map(path, picture(60, 60)).read_bytes())
    for place in data.draw(st.lists(st.integers(0, 600), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        tiles = _read_all(path)
    except UserError as error:
        assert "flip.tif" in str(error)
    else:
        assert all(abs(tile.lat or 0) <= 90 for tile in tiles)


def test_without_rasterio_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = utm_map(tmp_path / "map.tif", picture(100, 100))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingDependency, match=re.escape(install_hint("geo"))):
        open_geotiff(path, GeoTiffOptions(50))


@pytest.mark.parametrize(
    "options",
    [
        {"tile_metres": 0}, {"tile_metres": float("nan")}, {"tile_metres": 9, "stride_metres": -1},
        {"tile_metres": 9, "tile_pixels": 0}, {"tile_metres": 9, "tile_pixels": 4097},
        {"tile_metres": 9, "bands": (1, 2)}, {"tile_metres": 9, "nodata": float("nan")},
        {"tile_metres": 9, "stretch": (5, 5)}, {"tile_metres": 9, "max_empty": 1.5},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        GeoTiffOptions(**options)


_GROWTH = """
import sys
from pathlib import Path
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
def peak():  # of this process alone: the value of getrusage starts with the parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
source = open_geotiff(Path(sys.argv[1]), GeoTiffOptions(600))
source.read(source.tiles[0])
before = peak()
for tile in source.tiles:
    source.read(tile)
print(peak() - before)
"""


def _sparse(path: Path, side: int, nodata: int | None = None) -> Path:
    """A map of which no pixel is written."""
    shape = {"width": side, "height": side, "count": 3, "dtype": "uint8", "nodata": nodata, "sparse_ok": True}
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", driver="GTiff", crs=UTM, transform=upright(UTM), **shape, **tiled):
        pass
    return path


@pytest.mark.parametrize("pixels", [None, 256])
def test_a_tile_of_too_many_pixels_is_refused_by_name(tmp_path: Path, pixels: int | None) -> None:
    path = _sparse(tmp_path / "map.tif", 100_000)
    with pytest.raises(DataError, match=r"map\.tif: a tile would be .* pixels .*--tile-metres.*overviews"):
        open_geotiff(path, GeoTiffOptions(49_000, tile_pixels=pixels))


def test_large_tiles_are_drawn_in_fewer_pixels(tmp_path: Path) -> None:
    source = open_geotiff(_sparse(tmp_path / "map.tif", 6000), GeoTiffOptions(3000))
    (tile,) = source.tiles
    assert "4096 pixels" in " ".join(source.notes)
    assert source.read(tile).image.size == (4096, 4096)
    assert tile.metres_per_pixel == pytest.approx(3000 / 4096, rel=0.001)


def test_a_huge_map_of_nothing_is_answered_without_reading_it(tmp_path: Path) -> None:
    """2.5 billion pixels, and tiles by the ten thousand."""
    path = _sparse(tmp_path / "map.tif", 50_000, nodata=0)
    with pytest.raises(DataError, match=r"each of 1\d{4} tiles"):
        open_geotiff(path, GeoTiffOptions(250))
    with rasterio.open(path, "r+") as file:
        file.write(picture(512, 512), window=Window(1024, 512, 512, 512))
    kept = open_geotiff(path, GeoTiffOptions(250, 125, max_empty=0.5)).tiles
    assert kept
    for tile in kept:
        column, row, width, height = tile.more["window"]
        assert column < 1536 and column + width > 1024 and row < 1024 and row + height > 512


def test_a_map_of_any_size_is_read_in_little_memory(tmp_path: Path) -> None:
    """240 MB of pixels, none of them written: with GDAL's default cache, all of them are kept in memory."""
    path = _sparse(tmp_path / "large.tif", 9000)
    line = [sys.executable, "-c", _GROWTH, str(path)]
    grown = int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)  # KiB
    assert 10_000 < grown < 190_000
