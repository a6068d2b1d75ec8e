"""A folder of tile images: positions come out of a CSV, the images' names or their EXIF, or there are none."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.files import readable
from geodtr.runtime.images.decode import list_images
from geodtr.runtime.sources.positioned.exif import find_in_exif
from geodtr.runtime.sources.positioned.filename import CONVENTIONS, compile_pattern, find_in_name, match_name
from geodtr.runtime.sources.positioned.tiles_csv import FILE_NAME, read_tiles_csv
from geodtr.runtime.sources.raster.vrt import sheets_remedy
from geodtr.runtime.sources.tile import ListedTiles, Position, Tile

_GEO_KEYS = 34735
"""TIFF tag of every GeoTIFF (OGC 19-008r4, GeoKeyDirectoryTag)."""

Origin = Literal["names", "exif", "none"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)

Reading = Position | DataError | None
"""An image's position, or the reason to leave it out; None if it gives none."""


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """Where a folder's positions come from: `positions` is a CSV file, or "names", "exif" or "none".

    With None, tiles.csv is read where there is one, then names and EXIF are tried. `pattern` describes names with
    positions (see compile_pattern). With `skip_unpositioned`, images whose name or EXIF gives no position, or a wrong
    one, are left out. Raises ConfigError when a pattern is given and names are not to be read.
    """

    positions: Path | Origin | None = None
    pattern: str | None = None
    skip_unpositioned: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.positions, str) and self.positions not in ORIGINS:
            object.__setattr__(self, "positions", Path(self.positions))  # text is a path as well
        if self.pattern is not None and self.positions not in (None, "names"):
            raise ConfigError(
                f"A pattern reads names, and positions are to come from {self.positions}: give one of them."
            )


@readable(DataError)
def open_folder(folder: Path, options: FolderOptions = FolderOptions()) -> ListedTiles:
    """The images directly in `folder`, by name, or those that a CSV lists, in its order; `notes` report which was used.

    Raises ImageError when there are none, DataError naming the first image whose position is half known, can be read in
    two ways, or is missing where others have one.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Check the path.")
    if isinstance(options.positions, Path):
        return _listed(folder, options.positions)
    explicit = options.positions is not None or options.pattern is not None
    if not explicit and (folder / FILE_NAME).is_file():
        return _listed(folder, folder / FILE_NAME)
    images = list_images(folder)
    readings, note = _find(images, options)
    tiles = [_tile(image, at) for image, at in zip(images, readings, strict=True) if not isinstance(at, DataError)]
    notes = [note]
    if faults := [fault for fault in readings if isinstance(fault, DataError)]:
        notes.append(f"{len(faults)} of {len(images)} images are left out, the first: {faults[0]}")
    return ListedTiles(str(folder), tiles, tuple(notes))


def _listed(folder: Path, path: Path) -> ListedTiles:
    tiles, understood = read_tiles_csv(path, folder)
    positioned = sum(tile.lat is not None for tile in tiles)
    note = f"Tiles come from {path}, which gives {positioned} positions: {understood}."
    return ListedTiles(str(folder), tiles, (note,))


def _tile(image: Path, at: Position | None) -> Tile:
    if at is None:
        return Tile(id=image.name, file=str(image))
    return Tile(image.name, str(image), at.lat, at.lon, at.heading, at.metres_per_pixel)


def _find(images: Sequence[Path], options: FolderOptions) -> tuple[Sequence[Reading], str]:
    """For each image a position (all of them or none), or why it is left out; and where positions were found."""
    if options.positions == "none":
        return [None] * len(images), "Positions were not asked for."
    if options.pattern is not None:
        pattern = compile_pattern(options.pattern)
        readings = [_attempt(lambda image: match_name(image, pattern), image, options) for image in images]
        if matched := _all_or_none(images, readings, "name", options):
            return matched, f"Positions by the pattern {options.pattern}."
        raise DataError(f"{images[0]}: its name gives no position, nor does any other's. Change --pattern.")
    if options.positions != "exif":
        readings = [_attempt(find_in_name, image, options) for image in images]
        if named := _all_or_none(images, readings, "name", options):
            return named, "Positions come from the images' names."
    if options.positions == "names":
        raise DataError(
            f"{images[0]}: its name gives no position; known are {', '.join(CONVENTIONS)}. Say how names are meant: "
            "--pattern '..{lat}..{lon}..'"
        )
    with ThreadPoolExecutor(16) as pool:
        readings = list(pool.map(lambda image: _attempt(find_in_exif, image, options), images))
    if tagged := _all_or_none(images, readings, "EXIF", options):
        return tagged, "Positions come from the images' EXIF."
    if options.positions == "exif":
        raise DataError(f"{images[0]}: its EXIF gives no position, nor does any other image's. Give them in a CSV.")
    if options.skip_unpositioned:
        raise DataError(
            f"{images[0]}: neither its name nor its EXIF gives a position, nor does any other image's: "
            f"--skip-unpositioned would leave all {len(images)} out. Give positions in {FILE_NAME}."
        )
    note = f"No positions were found: there is no {FILE_NAME}, and names and EXIF give none."
    if _is_geotiff(images[0]):
        remedy = sheets_remedy(images[0].parent)
        note += f" {images[0].name} is a GeoTIFF: of a folder of them no positions are read. {remedy}"
    return [None] * len(images), note


def _is_geotiff(image: Path) -> bool:
    try:
        with Image.open(image, formats=("TIFF",)) as opened:
            return _GEO_KEYS in opened.getexif()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _attempt(find: Callable[[Path], Position | None], image: Path, options: FolderOptions) -> Reading:
    try:
        return find(image)
    except DataError as error:
        if not options.skip_unpositioned:
            raise DataError(f"{error} To leave such images out: --skip-unpositioned") from None
        return error


def _all_or_none(
    images: Sequence[Path], readings: Sequence[Reading], where: str, options: FolderOptions
) -> Sequence[Reading] | None:
    """`readings` where all have a position, or some have one and the others are left out; None where none has."""
    known = sum(isinstance(each, Position) for each in readings)
    if not known or known == len(images):
        return readings if known else None
    missing = [DataError(f"{image}: its {where} gives no position") for image in images]
    if options.skip_unpositioned:
        return [fault if each is None else each for each, fault in zip(readings, missing, strict=True)]
    raise DataError(
        f"{missing[readings.index(None)]}, and {known} of {len(images)} images have one there. Give them in "
        f"{FILE_NAME}, leave such images out (--skip-unpositioned), or do without: --positions none"
    )
