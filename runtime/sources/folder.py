"""A folder of tile images: positions come out of a CSV, the images' names or their EXIF, or there are none."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.files import readable
from geodtr.runtime.images.decode import list_images
from geodtr.runtime.sources.exif import find_in_exif
from geodtr.runtime.sources.filename import CONVENTIONS, compile_pattern, find_in_name, match_names
from geodtr.runtime.sources.tile import ListedTiles, Position, Tile
from geodtr.runtime.sources.tiles_csv import FILE_NAME, read_tiles_csv

Origin = Literal["names", "exif", "none"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """Where a folder's positions come from: `positions` is a CSV file, or "names", "exif" or "none".

    With None, tiles.csv is read where there is one, then names and EXIF are tried. `pattern` describes names with
    positions (see compile_pattern). Raises ConfigError when a pattern is given and names are not to be read.
    """

    positions: Path | Origin | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.pattern is not None and self.positions not in (None, "names"):
            raise ConfigError(
                f"A pattern reads names, and positions shall come from {self.positions}: give one of them."
            )


@readable(DataError)
def open_folder(folder: Path, options: FolderOptions = FolderOptions()) -> ListedTiles:
    """The images directly in `folder`, by name, or those that a CSV lists, in its order; `notes` say which was used.

    Raises ImageError when there are none, DataError naming the first image whose position is half known, can be read in
    two ways, or is missing where others have one.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Check the path.")
    if isinstance(options.positions, Path):
        return _listed(folder, options.positions)
    if options == FolderOptions() and (folder / FILE_NAME).is_file():
        return _listed(folder, folder / FILE_NAME)
    images = list_images(folder)
    positions, note = _find(images, options)
    tiles = [_tile(image, position) for image, position in zip(images, positions, strict=True)]
    return ListedTiles(str(folder), tiles, (note,))


def _listed(folder: Path, path: Path) -> ListedTiles:
    tiles = read_tiles_csv(path, folder)
    positioned = sum(tile.lat is not None for tile in tiles)
    return ListedTiles(str(folder), tiles, (f"Tiles come from {path}, which gives {positioned} positions.",))


def _tile(image: Path, at: Position | None) -> Tile:
    if at is None:
        return Tile(id=image.name, file=str(image))
    return Tile(id=image.name, file=str(image), lat=at.lat, lon=at.lon, heading=at.heading)


def _find(images: Sequence[Path], options: FolderOptions) -> tuple[Sequence[Position | None], str]:
    """A position for each image, or for none, and a sentence that names the origin of the positions."""
    if options.positions == "none":
        return [None] * len(images), "Positions were not asked for."
    if options.pattern is not None:
        return match_names(images, compile_pattern(options.pattern)), f"Positions by the pattern {options.pattern}."
    if options.positions != "exif" and (named := _all_or_none(images, [find_in_name(i) for i in images], "name")):
        return named, "Positions come from the images' names."
    if options.positions == "names":
        raise DataError(
            f"{images[0]}: its name gives no position; known are {', '.join(CONVENTIONS)}. Say how names are meant: "
            "--pattern '..{lat}..{lon}..'"
        )
    with ThreadPoolExecutor(16) as pool:
        positions = list(pool.map(find_in_exif, images))
    if tagged := _all_or_none(images, positions, "EXIF"):
        return tagged, "Positions come from the images' EXIF."
    if options.positions == "exif":
        raise DataError(f"{images[0]}: its EXIF gives no position, nor does any other image's. Give them in a CSV.")
    return [None] * len(images), f"No positions were found: there is no {FILE_NAME}, and names and EXIF give none."


def _all_or_none(
    images: Sequence[Path], found: Sequence[Position | None], where: str
) -> Sequence[Position | None] | None:
    """`found` where all have a position; None where none has."""
    known = sum(position is not None for position in found)
    if 0 < known < len(images):
        first = images[found.index(None)]
        raise DataError(
            f"{first}: its {where} gives no position, and {known} of {len(images)} images have one there. Give them in "
            f"{FILE_NAME}, or do without: --positions none"
        )
    return found if known else None
