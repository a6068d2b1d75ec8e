"""The ground as one picture: a map lies where its tiles do, and tiles are found again where they came from."""

import json
import sqlite3
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maps import MAPS, UTM, picture, upright, utm_map, write_map
from PIL import Image
from pmtiles_file import pmtiles

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.gallery.ground import Reread
from geodtr.runtime.sources.coverage import measure, positions
from geodtr.runtime.sources.mosaic import lay_mosaic
from geodtr.runtime.sources.overview import read_overview
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tile import Tile, TileSource
from geodtr.runtime.sources.tiled.slippy import XyzOptions


def _slope(width: int, height: int) -> np.ndarray[Any, Any]:
    """Pixels whose red grows with the column and green with the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 255 // width, rows * 255 // height, np.full_like(rows, 90)]).astype(np.uint8)


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_lies_where_its_tiles_do(tmp_path: Path, kind: str) -> None:
    crs, to_map = MAPS[kind]
    source = open_geotiff(write_map(tmp_path / "map.tif", _slope(500, 400), crs, to_map), GeoTiffOptions(40, 30))
    frame = measure(source.tiles).frame
    assert frame is not None
    frame = frame.wider(30, 30)
    mosaic = lay_mosaic(source, source.tiles, frame, (300, 250))
    assert (len(mosaic.sides), mosaic.unreadable) == (len(source.tiles), ())
    pixels = np.asarray(mosaic.image).astype(int)
    x, y = frame.metres(*positions(source.tiles).T)
    for tile, right, up in zip(source.tiles, x, y, strict=True):
        assert tile.side_metres == pytest.approx(40, rel=0.02)
        middle = np.asarray(source.read(tile).image.resize((1, 1), Image.Resampling.BOX)).reshape(3)
        here = pixels[round(250 - up * 250 / frame.size[1] - 0.5), round(right * 300 / frame.size[0] - 0.5)]
        assert np.abs(here[:3] - middle).max() <= 4
        assert here[3] == 255


def test_beyond_the_map_nothing_is_drawn(tmp_path: Path) -> None:
    pixels = picture(200, 200)
    pixels[:, :, 100:] = 0
    path = write_map(tmp_path / "map.tif", pixels, UTM, upright(UTM), nodata=0)
    frame = measure(open_geotiff(path, GeoTiffOptions(20, max_empty=1)).tiles).frame
    assert frame is not None
    opaque = np.asarray(read_overview(path, None, frame.wider(100, 100), (100, 100)))[..., 3] > 0
    rows, columns = np.nonzero(opaque)
    assert opaque[40:60, 35:48].all()
    assert (rows.min(), rows.max(), columns.min()) == pytest.approx((33, 66, 33), abs=3)
    assert columns.max() == pytest.approx(50, abs=2)


def test_values_of_16_bits_are_stretched(tmp_path: Path) -> None:
    pixels = _slope(200, 200).astype(np.uint16) * 9 + 4000
    path = write_map(tmp_path / "map.tif", pixels, UTM, upright(UTM))
    tiles = open_geotiff(path, GeoTiffOptions(20, stretch=(4000, 6300))).tiles
    frame = measure(tiles).frame
    assert frame is not None
    red = np.asarray(read_overview(path, None, frame, (50, 50)))[..., 0]
    assert red[:, 0].max() < 40
    assert red[:, -1].min() > 200


def test_what_is_no_map_is_named(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    path.write_bytes(b"II*\0")
    frame = measure([Tile("a", "a", 1.0, 2.0)]).frame
    assert frame is not None
    with pytest.raises(DataError, match=r"map\.tif"):
        read_overview(path, None, frame, (10, 10))
    tile = Tile("a", str(path), 1.0, 2.0, 0.0, 0.5, {"window": [0, 0, 9, 9]})
    mosaic = lay_mosaic(Reread(), [tile], frame.wider(50, 50), (10, 10))
    assert [tile for tile, _ in mosaic.unreadable] == [tile]
    assert mosaic.image.getchannel("A").getbbox() is None


def _image(x: int, y: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8), (x % 256, y % 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def _sources(folder: Path) -> dict[str, TileSource]:
    """The same map tiles, kept in each of the ways."""
    numbers = [(x, y) for x in range(70, 73) for y in range(40, 43)]
    for name, flipped in (("xyz", False), ("tms", True)):
        for x, y in numbers:
            path = folder / name / "17" / str(x) / f"{(1 << 17) - 1 - y if flipped else y}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_image(x, y))
    with sqlite3.connect(folder / "map.mbtiles") as file:
        file.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        rows = [(17, x, (1 << 17) - 1 - y, _image(x, y)) for x, y in numbers]
        file.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    file.close()
    (folder / "map.pmtiles").write_bytes(pmtiles({(17, x, y): _image(x, y) for x, y in numbers}))
    (folder / "images").mkdir()
    (folder / "images/a.png").write_bytes(_image(1, 2))
    return {
        "xyz": open_source(folder / "xyz", XyzOptions(merge=2, step=1)),
        "tms": open_source(folder / "tms", XyzOptions(tms=True)),
        "mbtiles": open_source(folder / "map.mbtiles", XyzOptions(merge=3)),
        "pmtiles": open_source(folder / "map.pmtiles"),
        "folder": open_source(folder / "images"),
    }


def test_tiles_are_read_again_from_where_they_came(tmp_path: Path) -> None:
    for source in _sources(tmp_path).values():
        again = Reread()
        for tile in source.tiles:
            np.testing.assert_array_equal(again.read(tile).image, source.read(tile).image)


def test_a_deep_map_is_read_again_with_its_bands_and_stretch(tmp_path: Path) -> None:
    """As --refine and pictures of a map do; the tiles keep what was asked for."""
    pixels = picture(60, 60, 4).astype(np.uint16) * 40
    path = utm_map(tmp_path / "deep.tif", pixels)
    sources = [
        open_geotiff(path, GeoTiffOptions(15.0, bands=bands, stretch=stretch))
        for bands, stretch in (((4, 2, 1), (0.0, 10_200.0)), ((3,), (500.0, 4000.5)))
    ]
    again = Reread()
    for source in sources:
        for tile in source.tiles:
            kept = replace(tile, more=json.loads(json.dumps(dict(tile.more))))  # as a gallery gives it back
            np.testing.assert_array_equal(again.read(kept).image, source.read(tile).image)
    for more in ({"bands": 7}, {"bands": [None]}, {"bands": [9]}, {"stretch": [3]}, {"stretch": ["nan", 2]}):
        with pytest.raises(ImageError):
            again.read(replace(tile, more={"window": [0, 0, 9, 9], **more}))


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("gone/17/1/2.png", {"zoom": 17, "x": 1, "y": 2}),
        ("gone.mbtiles#17/1/2", {"zoom": 17, "x": 1, "y": 2}),
        ("no place", {"zoom": 17, "x": 1, "y": 2}),
        ("a.mbtiles#17/1/2", {"zoom": "17", "x": None, "y": 2}),
        ("a/17/1/2.png", {"zoom": 10**9, "x": 1, "y": 2}),
        ("gone.png", {}),
    ],
)
def test_tiles_whose_file_is_gone_are_named(file: str, more: dict[str, Any]) -> None:
    with pytest.raises(ImageError):
        Reread().read(Tile("17/1/2+99", file, 1.0, 2.0, more=more))
