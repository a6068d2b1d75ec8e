"""Maps: GeoTIFF, JPEG 2000, VRT, world and side files, MBTiles, PMTiles."""

import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path

import rasterio
import rasterio.shutil
from hostile import changed_text, damaged
from hypothesis import strategies as st
from kinds import Kind, of_file
from maps import UTM, picture, utm_map
from PIL import Image
from pmtiles_file import pmtiles as packed

from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tile import check_tiles
from geodtr.runtime.sources.tiled.slippy import XyzOptions

_WORLD = "0.5\n0\n0\n-0.5\n600000\n5330000\n"
_BLOCK = [(17, x, y) for x in range(70, 74) for y in range(40, 43)]
_TAGS = ("<VRTDataset", "<VRTRasterBand", "<SimpleSource", "<SourceFilename", "<SrcRect", "map.tif", "Byte", "EPSG")


def _cut(path: Path) -> None:
    source = open_geotiff(path, GeoTiffOptions(10))
    check_tiles(source.name, source.tiles)
    for tile in source.tiles[:4]:
        source.read(tile)


def geotiff(root: Path) -> Kind:
    plain = utm_map(root / "plain.tif", picture(60, 60))
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    small = utm_map(root / "small.tif", picture(60, 60), compress="deflate", **tiled)
    lossy = utm_map(root / "lossy.tif", picture(60, 60), compress="jpeg", nodata=0, **tiled)
    inputs = st.one_of([damaged(path.read_bytes(), 700) for path in (plain, small, lossy)])
    return of_file(plain, inputs, lambda: _cut(plain))


def jpeg2000(root: Path) -> Kind:
    utm_map(root / "map.tif", picture(60, 60))
    path = root / "map.jp2"
    rasterio.shutil.copy(root / "map.tif", path, driver="JP2OpenJPEG")
    return of_file(path, damaged(path.read_bytes(), 700), lambda: _cut(path))


def vrt(root: Path) -> Kind:
    utm_map(root / "map.tif", picture(60, 60))
    path = root / "map.vrt"
    rasterio.shutil.copy(root / "map.tif", path, driver="VRT")
    text = path.read_text()
    return of_file(path, changed_text(text, _TAGS) | damaged(text.encode(), len(text)), lambda: _cut(path))


def world_file(root: Path) -> Kind:
    _unplaced(root)
    path = root / "map.tfw"
    path.write_text(_WORLD)
    return of_file(path, changed_text(_WORLD) | damaged(_WORLD.encode()), lambda: _cut(root / "map.tif"))


def side_file(root: Path) -> Kind:
    """GDAL's .aux.xml: statistics, a position, a reference system, the name of overviews."""
    _unplaced(root)
    path = root / "map.tif.aux.xml"
    text = (
        "<PAMDataset><SRS>EPSG:32632</SRS><GeoTransform>600000, 0.5, 0, 5330000, 0, -0.5</GeoTransform>"
        '<Metadata domain="xml:GML"><MDI key="N">1</MDI></Metadata>'
        '<PAMRasterBand band="1"><NoDataValue>0</NoDataValue>'
        '<Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata></PAMRasterBand></PAMDataset>'
    )
    path.write_text(text)
    words = ("SRS", "GeoTransform", "Metadata", "xml:GML", "PAMRasterBand", "NoDataValue")
    elsewhere = text.replace("xml:GML", "OVERVIEWS").replace('"N">1', '"OVERVIEW_FILE">/dev/zero')
    inputs = changed_text(text, words) | changed_text(elsewhere) | damaged(text.encode(), len(text))
    return of_file(path, inputs, lambda: _cut(root / "map.tif"))


def overviews(root: Path) -> Kind:
    utm_map(root / "map.tif", picture(60, 60))
    path = utm_map(root / "map.tif.ovr", picture(30, 30))
    return of_file(path, damaged(path.read_bytes(), 700), lambda: _cut(root / "map.tif"))


def _unplaced(root: Path) -> None:
    """A map whose position is in a file beside it."""
    shape = {"width": 60, "height": 60, "count": 3, "dtype": "uint8"}
    with rasterio.open(root / "map.tif", "w", driver="GTiff", crs=UTM, **shape) as file:
        file.write(picture(60, 60))


def _tile(x: int, y: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8), (x, y, 7)).save(stream, "PNG")
    return stream.getvalue()


def _read_tiles(path: Path) -> None:
    source = open_source(path, XyzOptions(zoom=17))
    check_tiles(source.name, source.tiles)
    for tile in source.tiles[:4]:
        source.read(tile)


def mbtiles(root: Path) -> Kind:
    path = root / "map.mbtiles"
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE metadata (name text, value text)")
        file.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        rows = [(zoom, x, (1 << zoom) - 1 - y, _tile(x, y)) for zoom, x, y in _BLOCK]
        file.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
        file.commit()
    return of_file(path, damaged(path.read_bytes(), 2048), lambda: _read_tiles(path))


def pmtiles(root: Path) -> Kind:
    path = root / "map.pmtiles"
    path.write_bytes(packed({place: _tile(*place[1:]) for place in _BLOCK}, leaf=3))
    return of_file(path, damaged(path.read_bytes(), 400), lambda: _read_tiles(path))
