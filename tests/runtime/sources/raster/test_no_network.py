"""A map is a local file: nothing that it names is fetched, and only files in its folder are opened."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from listening import Listener, listening
from maps import MERCATOR, UTM, picture, upright, utm_map
from rasterio.vrt import WarpedVRT

from geodtr import UserError
from geodtr.runtime.errors import DataError
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.gdal import gdal, local_only
from geodtr.runtime.sources.raster.geotiff import open_geotiff


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


def _vrt(path: Path, sheet: str, more: str = "", kind: str = "", relative: bool = False) -> Path:
    path.write_text(
        f"""<VRTDataset rasterXSize="100" rasterYSize="100"{kind}><SRS>{UTM}</SRS>
        <GeoTransform>600000,0.5,0,5330000,0,-0.5</GeoTransform>{more}
        <VRTRasterBand dataType="Byte" band="1"><SimpleSource>
        <SourceFilename relativeToVRT="{int(relative)}">{sheet}</SourceFilename><SourceBand>1</SourceBand>
        </SimpleSource></VRTRasterBand></VRTDataset>"""
    )
    return path


def _wms(path: Path, address: str) -> Path:
    path.write_text(
        f"""<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>
        <DataWindow><UpperLeftX>-20037508</UpperLeftX><UpperLeftY>20037508</UpperLeftY><LowerRightX>20037508</LowerRightX>
        <LowerRightY>-20037508</LowerRightY><TileLevel>2</TileLevel><YOrigin>top</YOrigin></DataWindow>
        <Projection>EPSG:3857</Projection><BandsCount>3</BandsCount></GDAL_WMS>"""
    )
    return path


def _overviews_elsewhere(folder: Path, address: str) -> Path:
    path = utm_map(folder / "tag.tif", picture(100, 100))
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/{address}/o.tif")
    return path


def _overviews_in_side_file(folder: Path, address: str) -> Path:
    path = utm_map(folder / "side.tif", picture(100, 100))
    mention = f'<MDI key="OVERVIEW_FILE">{address}/o.tif</MDI>'
    path.with_name("side.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS">{mention}</Metadata></PAMDataset>'
    )
    return path


def _beside(suffix: str) -> Callable[[Path, str], Path]:
    def make(folder: Path, address: str) -> Path:
        path = utm_map(folder / "beside.tif", picture(100, 100))
        _wms(path.with_name(path.name + suffix), address)
        return path

    return make


_MAPS: dict[str, Callable[[Path, str], Path]] = {
    "WMS called TIFF": lambda folder, address: _wms(folder / "a.tif", address),
    "WMS in a list": lambda folder, address: _vrt(folder / "a.vrt", str(_wms(folder / "b.tif", address))),
    "overviews": _overviews_elsewhere,
    "overviews in a side file": _overviews_in_side_file,
    "overviews beside": _beside(".ovr"),
    "mask beside": _beside(".msk"),
    **{
        name: lambda folder, address, name=name: _vrt(folder / "a.vrt", name.format(address))  # type: ignore[misc]
        for name in (
            "{}/a.tif",
            "/vsicurl/{}/a.tif",
            "/vsicurl_streaming/{}/a.tif",
            "/vsiwebhdfs/{}/webhdfs/v1/a",
            "/vsizip//vsicurl/{}/a.zip/a.tif",
            "WCS:{}/a",
            "NETCDF:{}/a.nc:v",
            'ZARR:"/vsicurl/{}/a.zarr"',
        )
    },
}


@pytest.mark.parametrize("name", _MAPS)
def test_nothing_is_fetched(tmp_path: Path, listener: Listener, name: str) -> None:
    listener.requests.clear()
    path = _MAPS[name](tmp_path, listener.address)
    with pytest.raises(UserError, match=rf"{path.name}|b\.tif"):
        source = open_geotiff(path, GeoTiffOptions(20))
        source.read(source.tiles[0])
    assert listener.requests == []


@pytest.mark.parametrize("how", ["{}/a.tif", "/vsicurl/{}/a.tif", "/vsicurl_streaming/{}/a.tif", "WCS:{}/a"])
def test_gdal_itself_finds_no_way_out(listener: Listener, how: str) -> None:
    """The second wall, behind the checks of files."""
    listener.requests.clear()
    with pytest.raises(DataError), gdal(DataError, "No."):
        rasterio.open(how.format(listener.address))
    assert listener.requests == []


def test_without_our_options_gdal_asks_the_network(listener: Listener) -> None:
    """The tests above would notice."""
    listener.requests.clear()
    with pytest.raises(rasterio.RasterioIOError):
        rasterio.open(f"{listener.address}/b.tif")
    assert listener.requests


@pytest.mark.parametrize(
    ("sheet", "more", "kind", "message"),
    [
        ("/etc/passwd", "", "", "no file in its folder"),
        ("../map.tif", "", "", "no file in its folder"),
        ("gone.tif", "", "", "is not a file"),
        ("", "", "", "no file in its folder"),
        ("map.tif", "", ' subClass="VRTPansharpenedDataset"', "VRTDataset VRTPansharpenedDataset"),
        ("map.tif", "<PixelFunctionCode>x</PixelFunctionCode>", "", "PixelFunctionCode"),
        ("map.tif", "<OverviewList>2</OverviewList>" + "<Overview>" * 30 + "</Overview>" * 30, "", "nested deeper"),
        ("map.tif", "<MaskBand>", "", "not a virtual map"),
    ],
)
def test_a_list_of_sheets_may_name_maps_in_its_folder_alone(
    tmp_path: Path, sheet: str, more: str, kind: str, message: str
) -> None:
    (tmp_path / "maps").mkdir()
    for folder in (tmp_path, tmp_path / "maps"):
        utm_map(folder / "map.tif", picture(100, 100, bands=1))
    path = _vrt(tmp_path / "maps/a.vrt", sheet, more, kind, relative=True)
    with pytest.raises(DataError, match=message):
        open_geotiff(path, GeoTiffOptions(20))


def test_what_gdals_own_programs_write_is_read(tmp_path: Path) -> None:
    """A list with relative paths, one with absolute ones, one with statistics, and a warped map."""
    pixels = picture(200, 200)
    path = utm_map(tmp_path / "map.tif", pixels)
    rasterio.shutil.copy(path, tmp_path / "relative.vrt", driver="VRT")
    text = (tmp_path / "relative.vrt").read_text()
    assert 'relativeToVRT="1">map.tif' in text
    (tmp_path / "absolute.vrt").write_text(text.replace('relativeToVRT="1">map.tif', f'relativeToVRT="0">{path}'))
    with rasterio.open(path) as file, WarpedVRT(file, crs=MERCATOR) as warped:
        rasterio.shutil.copy(warped, tmp_path / "warped.vrt", driver="VRT")
        expected = warped.read()
    for name in ("relative", "absolute"):
        source = open_geotiff(tmp_path / f"{name}.vrt", GeoTiffOptions(100))
        np.testing.assert_array_equal(source.read(source.tiles[0]).pixels, pixels.transpose(1, 2, 0))
    warped_source = open_geotiff(tmp_path / "warped.vrt", GeoTiffOptions(50))
    column, row, width, height = warped_source.tiles[0].more["window"]
    seen = warped_source.read(warped_source.tiles[0]).pixels
    if width == height:
        np.testing.assert_array_equal(seen, expected[:, row : row + height, column : column + width].transpose(1, 2, 0))


def test_maps_beside_are_read_where_they_are_maps(tmp_path: Path) -> None:
    path = utm_map(tmp_path / "map.tif", picture(512, 512))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([4], rasterio.enums.Resampling.average)
    assert path.with_name("map.tif.ovr").exists()
    assert len(open_geotiff(path, GeoTiffOptions(128, tile_pixels=64)).tiles) == 4
    with local_only(), rasterio.open(path) as file:
        assert file.overviews(1) == [4]


def test_a_jpeg_2000_map_is_cut_like_any_other(tmp_path: Path) -> None:
    pixels = picture(200, 200)
    path = tmp_path / "map.jp2"
    shape = {"width": 200, "height": 200, "count": 3, "dtype": "uint8"}
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(path, "w", driver="JP2OpenJPEG", crs=UTM, transform=upright(UTM), **shape, **lossless) as file:
        file.write(pixels)
    source = open_geotiff(path, GeoTiffOptions(100))
    np.testing.assert_array_equal(source.read(source.tiles[0]).pixels, pixels.transpose(1, 2, 0))


def test_a_map_that_is_cut_short_while_it_is_open_names_the_tile(tmp_path: Path) -> None:
    path = utm_map(tmp_path / "map.tif", picture(800, 800))
    source = open_geotiff(path, GeoTiffOptions(50))
    source.read(source.tiles[0])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3)
    with pytest.raises(UserError, match=r"map\.tif#"):
        for tile in source.tiles:
            source.read(tile)
