"""From what a user names to the source that it is: a file that is a map, a folder of map tiles, a folder of images.

A kind is one file with its options and how it is opened; a new one is its file, and its lines here.
"""

from pathlib import Path
from typing import Literal, Protocol

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.files import readable
from geodtr.runtime.images.decode import SUFFIXES as IMAGE_SUFFIXES
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.folder import FolderOptions, open_folder
from geodtr.runtime.sources.geotiff import SUFFIXES as MAP_SUFFIXES
from geodtr.runtime.sources.geotiff import GeoTiffOptions, open_geotiff
from geodtr.runtime.sources.tile import TileSource
from geodtr.runtime.sources.xyz import XyzOptions, is_xyz, open_xyz

Kind = Literal["folder", "geotiff", "xyz"]
Options = FolderOptions | GeoTiffOptions | XyzOptions

KINDS: dict[Kind, str] = {
    "folder": "a folder of images",
    "geotiff": "a map file",
    "xyz": "a folder of map tiles (Z/X/Y)",
}
"""What each is called in a sentence."""

_KIND_OF: dict[type[Options], Kind] = {FolderOptions: "folder", GeoTiffOptions: "geotiff", XyzOptions: "xyz"}


class OpenedSource(TileSource, Protocol):
    """A source that reports how it was read: `notes` are sentences for the user."""

    @property
    def notes(self) -> tuple[str, ...]: ...


@readable(DataError)
def find_kind(place: Path) -> Kind:
    """What `place` is. Raises DataError when it cannot be read, is no source of tiles, or could be two things."""
    if place.is_file() and place.suffix.lower() in MAP_SUFFIXES:
        return "geotiff"
    if not place.is_dir():
        problem = "is a file of another kind" if place.exists() else "does not exist"
        raise DataError(
            f"{place} {problem}. Tiles come from a map file ({', '.join(sorted(MAP_SUFFIXES))}), a folder of map tiles "
            "(Z/X/Y.png), or a folder of images."
        )
    if not is_xyz(place):
        return "folder"
    if any(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in place.iterdir()):
        raise DataError(
            f"{place} holds images and folders of map tiles (Z/X/Y). Say which are meant: --zoom Z for the map tiles, "
            "--positions names, exif, none or a CSV for the images."
        )
    return "xyz"


def open_source(place: Path, options: Options | None = None, *, track: Track = untracked) -> OpenedSource:
    """Open what `place` is, with options of its kind; without any, a folder as it is found. `track` sees the work.

    Options say which kind is meant where a folder could be two. Raises ConfigError when they are another kind's, or
    when a map is given without a tile's size; DataError, ImageError and MissingDependency as open_folder, open_geotiff
    and open_xyz do.
    """
    kind = _check_kind(place, options)
    if isinstance(options, GeoTiffOptions):
        return open_geotiff(place, options, track=track)
    if kind == "geotiff":
        raise ConfigError(f"{place} is a map: say how large a tile is on the ground, for example --tile-metres 60")
    if kind == "xyz":
        return open_xyz(place, options if isinstance(options, XyzOptions) else XyzOptions())
    return open_folder(place, options if isinstance(options, FolderOptions) else FolderOptions())


@readable(DataError)
def _check_kind(place: Path, options: Options | None) -> Kind:
    requested = None if options is None else _KIND_OF[type(options)]
    if requested is not None and requested != "geotiff" and place.is_dir():
        return requested
    kind = find_kind(place)
    if requested is not None and requested != kind:
        raise ConfigError(f"{place} is {KINDS[kind]}, and the options are for {KINDS[requested]}.")
    return kind
