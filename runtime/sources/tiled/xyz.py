"""A folder of slippy-map tiles, z/x/y.png, .jpg or .webp, as web maps and gdal2tiles write them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from geodtr.runtime.errors import DataError
from geodtr.runtime.files import readable
from geodtr.runtime.images.decode import decode
from geodtr.runtime.sources.tiled.slippy import ALL_TILES, MAX_ZOOM, MapTiles, XyzOptions, choose_zoom, map_tiles

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def is_xyz(folder: Path) -> bool:
    """Whether `folder` holds folders named by a zoom that hold folders named by an x."""
    return any(any(_numbered(zoom)) for _, zoom in _numbered(folder))


@readable(DataError)
def open_xyz(folder: Path, options: XyzOptions = ALL_TILES) -> MapTiles:
    """All tiles of one zoom, as `map_tiles` gives them; y counts from the north whichever way the files' names do.

    Raises DataError when there are none, several zooms to choose from, two images of one tile, or a folder that cannot
    be read; otherwise as `map_tiles`.
    """
    zooms = sorted(zoom for zoom, path in _numbered(folder) if zoom <= MAX_ZOOM and any(_numbered(path)))
    if not zooms:
        raise DataError(f"{folder} holds no folders Z/X, the tiles of a zoom.")
    zoom = choose_zoom(str(folder), zooms, options.zoom)
    files, broken = _files(folder / str(zoom), zoom, options.tms)
    if not files:
        raise DataError(
            f"{folder / str(zoom)} holds no map tiles named X/Y with {', '.join(sorted(SUFFIXES))}."
            + (f" The first of {len(broken)} other files: {broken[0]}." if broken else "")
        )
    notes = ["Their y counts from the south."] if options.tms else []
    if broken:
        notes.append(f"{len(broken)} files are left out: their names are no tile's of zoom {zoom}. First: {broken[0]}.")
    return map_tiles(str(folder), _Files(files), files, zoom, options, notes)


@dataclass(frozen=True, slots=True)
class _Files:
    """A TileStore of image files by x and y."""

    paths: Mapping[tuple[int, int], Path]

    def name(self, x: int, y: int) -> str:
        return str(self.paths[x, y])

    def image(self, x: int, y: int) -> Image.Image:
        return decode(self.paths[x, y]).image


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    """The folders in it whose names are whole numbers, written as whole numbers are."""
    if folder.is_dir():
        yield from ((int(p.name), p) for p in folder.iterdir() if _is_number(p.name) and p.is_dir())


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") and len(text) < 11


def _files(folder: Path, zoom: int, tms: bool) -> tuple[dict[tuple[int, int], Path], list[Path]]:
    """The images by x and y, y counted from the north, in order; and all other files that are not hidden."""
    count = 1 << zoom
    images, broken = dict[tuple[int, int], Path](), list[Path]()
    for path in _visible(folder):
        number = int(path.name) if _is_number(path.name) else count
        if number >= count or not path.is_dir():
            broken.append(path)
            continue
        for image in _visible(path):
            y = int(image.stem) if _is_number(image.stem) else count
            if y >= count or image.suffix.lower() not in SUFFIXES:
                broken.append(image)
                continue
            at = (number, count - 1 - y if tms else y)
            if at in images:
                raise DataError(f"{images[at]} and {image} are one and the same tile. Remove one of them.")
            images[at] = image
    return dict(sorted(images.items())), broken


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
