"""From what a user names to the source that it is: a file that is a map, map tiles in a file or a folder, a folder of
images.

A kind is one file with its options and how it is opened; a new one is its file, and its lines here.
"""

import re
from pathlib import Path
from typing import Literal, Protocol

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.files import readable
from geodtr.runtime.images.decode import SUFFIXES as IMAGE_SUFFIXES
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.raster.geotiff import SUFFIXES as MAP_SUFFIXES
from geodtr.runtime.sources.raster.geotiff import open_geotiff
from geodtr.runtime.sources.raster.vrt import sheets_remedy
from geodtr.runtime.sources.tile import TileSource
from geodtr.runtime.sources.tiled.mbtiles import SUFFIXES as MBTILES_SUFFIXES
from geodtr.runtime.sources.tiled.mbtiles import open_mbtiles
from geodtr.runtime.sources.tiled.pmtiles import SUFFIXES as PMTILES_SUFFIXES
from geodtr.runtime.sources.tiled.pmtiles import open_pmtiles
from geodtr.runtime.sources.tiled.slippy import ALL_TILES, XyzOptions
from geodtr.runtime.sources.tiled.xyz import is_xyz, open_xyz

Kind = Literal["folder", "geotiff", "mbtiles", "pmtiles", "xyz"]
Options = FolderOptions | GeoTiffOptions | XyzOptions

KINDS: dict[Kind, str] = {
    "folder": "a folder of images",
    "geotiff": "a map file",
    "mbtiles": "a file of map tiles",
    "pmtiles": "a file of map tiles",
    "xyz": "a folder of map tiles (Z/X/Y)",
}
"""What each is called in a sentence."""

_KINDS_OF: dict[type[Options], tuple[Kind, ...]] = {
    FolderOptions: ("folder",),
    GeoTiffOptions: ("geotiff",),
    XyzOptions: ("xyz", "mbtiles", "pmtiles"),
}

_KIND_OF_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys(MAP_SUFFIXES, "geotiff"),
    **dict.fromkeys(MBTILES_SUFFIXES, "mbtiles"),
    **dict.fromkeys(PMTILES_SUFFIXES, "pmtiles"),
}

_OTHERS = {
    ".gpkg": "Convert it to GeoTIFF: gdal_translate",
    ".ecw": "Convert it to GeoTIFF: gdal_translate",
    ".sid": "Convert it to GeoTIFF: gdal_translate",
    ".kmz": "Convert it to GeoTIFF: gdal_translate",
    ".zip": "Unpack it first.",
}
"""Files that people have, and what may be done with them."""


class OpenedSource(TileSource, Protocol):
    """A source that reports how it was read: `notes` are sentences for the user."""

    @property
    def notes(self) -> tuple[str, ...]: ...


@readable(DataError)
def find_kind(place: Path) -> Kind:
    """What `place` is. Raises DataError when it cannot be read, is no source of tiles, or could be two things."""
    if place.is_file() and (kind := _KIND_OF_SUFFIX.get(place.suffix.lower())) is not None:
        return kind
    if not place.is_dir():
        raise DataError(_why_not(place))
    if not is_xyz(place):
        if place.name.isdigit() and is_xyz(place.parent):
            raise DataError(
                f"{place} is one zoom of a folder of map tiles. Name the folder: {place.parent} --zoom {place.name}"
            )
        return "folder"
    if any(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in place.iterdir()):
        raise DataError(
            f"{place} holds images and folders of map tiles (Z/X/Y). Say which are meant: --zoom Z for the map tiles, "
            "--positions names, exif, none or a CSV for the images."
        )
    return "xyz"


def _why_not(place: Path) -> str:
    """What to say of a place that is no folder and no file of a known kind."""
    if (address := re.match(r"([a-z][a-z+.-]+:)/+(.*)", str(place), re.IGNORECASE | re.DOTALL)) is not None:
        return (
            f"{address[1]}//{address[2]} is an address, and nothing is fetched from a network. Download the map first: "
            "in QGIS, Generate XYZ tiles (MBTiles)."
        )
    problem = "is a file of another kind" if place.exists() else "does not exist"
    remedy = _OTHERS.get(place.suffix.lower(), "") if place.exists() else ""
    maps, tiles = (", ".join(sorted(suffixes)) for suffixes in (MAP_SUFFIXES, MBTILES_SUFFIXES | PMTILES_SUFFIXES))
    return (
        f"{place} {problem}. Tiles come from a map file ({maps}), map tiles in a file ({tiles}) or a folder "
        f"(Z/X/Y.png), or a folder of images. {remedy}".rstrip()
    )


def open_source(place: Path, options: Options | None = None, *, track: Track = untracked) -> OpenedSource:
    """Open what `place` is, with options of its kind; without any, a folder as it is found. `track` sees the work.

    Options say which kind is meant where a folder could be two. Raises ConfigError when they are another kind's, or
    when a map is given without a tile's size; DataError, ImageError and MissingDependency as open_folder, open_geotiff,
    open_mbtiles, open_pmtiles and open_xyz do.
    """
    kind = _check_kind(place, options)
    if isinstance(options, GeoTiffOptions):
        return open_geotiff(place, options, track=track)
    if kind == "geotiff":
        raise ConfigError(f"{place} is a map: say how large a tile is on the ground, for example --tile-metres 60")
    if kind != "folder":
        open_tiles = {"xyz": open_xyz, "mbtiles": open_mbtiles, "pmtiles": open_pmtiles}[kind]
        return open_tiles(place, options if isinstance(options, XyzOptions) else ALL_TILES)
    return open_folder(place, options if isinstance(options, FolderOptions) else FolderOptions())


@readable(DataError)
def _check_kind(place: Path, options: Options | None) -> Kind:
    requested = () if options is None else _KINDS_OF[type(options)]
    if requested and requested[0] != "geotiff" and place.is_dir():
        return requested[0]
    kind = find_kind(place)
    if requested and kind not in requested:
        remedy = f" {sheets_remedy(place)}" if (kind, requested[0]) == ("folder", "geotiff") else ""
        raise ConfigError(f"{place} is {KINDS[kind]}, and the options are for {KINDS[requested[0]]}.{remedy}")
    return kind
