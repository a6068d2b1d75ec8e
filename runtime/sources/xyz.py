"""A folder of slippy-map tiles, z/x/y.png, .jpg or .webp, as web maps and gdal2tiles write them.

Knows tile numbers and what they mean on the ground; the images are all in Web Mercator.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import atan, cos, degrees, pi, radians, sinh
from pathlib import Path

from PIL import Image

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.files import readable
from geodtr.runtime.geodesy import SEMI_MAJOR
from geodtr.runtime.images.decode import Decoded, decode
from geodtr.runtime.sources.tile import Tile

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
MAX_ZOOM = 30


@dataclass(frozen=True, slots=True)
class XyzOptions:
    """Which tiles are read: of `zoom` (the only one where it is None), `tms` where y counts from the south.

    `merge` x `merge` neighbours make one reference; references begin `step` tiles apart (`merge` where it is None), so
    that a smaller step overlaps them. Raises ConfigError naming a value out of range.
    """

    zoom: int | None = None
    tms: bool = False
    merge: int = 1
    step: int | None = None

    def __post_init__(self) -> None:
        if self.zoom is not None and not 0 <= self.zoom <= MAX_ZOOM:
            raise ConfigError(f"The zoom is {self.zoom}; allowed are 0 to {MAX_ZOOM}.")
        if not 1 <= self.merge <= 16:
            raise ConfigError(f"{self.merge} x {self.merge} tiles shall be merged; allowed are 1 to 16.")
        if self.step is not None and not 1 <= self.step <= self.merge:
            raise ConfigError(
                f"References shall begin {self.step} tiles apart; allowed are 1 to {self.merge}, the tiles that each "
                "merges (--merge)."
            )


def place(x: float, y: float, zoom: int) -> tuple[float, float]:
    """Latitude and longitude (degrees) of a point in tile numbers; (x, y) is a tile's upper left corner, and
    (x + 0.5, y + 0.5) what its middle pixel shows.

    lon = 360 x / 2^z - 180, lat = atan(sinh(pi (1 - 2 y / 2^z))). Source: OpenStreetMap wiki, Slippy map tilenames;
    the same as mercantile.ul.
    """
    count = 1 << zoom
    return degrees(atan(sinh(pi * (1 - 2 * y / count)))), 360 * x / count - 180


def metres_per_pixel(lat: float, zoom: int, side: int) -> float:
    """Metres on the ground of a pixel at `lat` (degrees) in tiles of `side` pixels: C cos(lat) / (side 2^z), where C is
    the equator's length. Source: OpenStreetMap wiki, Zoom levels; on the ellipsoid right within 0.7 %.
    """
    return 2 * pi * SEMI_MAJOR * cos(radians(lat)) / (side * (1 << zoom))


@dataclass(frozen=True, slots=True)
class XyzTiles:
    """A TileSource over the tiles of one zoom; `files` are the images by x and y, y counted from the north."""

    name: str
    tiles: Sequence[Tile]
    notes: tuple[str, ...]
    files: Mapping[tuple[int, int], Path]
    side: int
    merge: int

    def read(self, tile: Tile) -> Decoded:
        """The tile's image, or those that it is merged from side by side.

        Raises ImageError naming an image that cannot be read, or is not of the size of the others.
        """
        x, y = tile.more["x"], tile.more["y"]
        merged = Image.new("RGB", (self.merge * self.side, self.merge * self.side))
        for down, right in product(range(self.merge), repeat=2):
            merged.paste(self._image(self.files[x + right, y + down]), (right * self.side, down * self.side))
        return Decoded(merged, None)

    def _image(self, path: Path) -> Image.Image:
        image = decode(path).image
        if image.size != (self.side, self.side):
            raise ImageError(
                f"{path} has {image.width}x{image.height} pixels, the first tile {self.side}x{self.side}: its "
                "metres per pixel would be wrong. Replace or remove it."
            )
        return image


def is_xyz(folder: Path) -> bool:
    """Whether `folder` holds folders named by a zoom that hold folders named by an x."""
    return any(_numbered(zoom) for _, zoom in _numbered(folder))


@readable(DataError)
def open_xyz(folder: Path, options: XyzOptions = XyzOptions()) -> XyzTiles:
    """All tiles of one zoom, by column from the west and within it from the north. An id is z/x/y, with +K when K x K
    are merged; y counts from the north whichever way the files' names do.

    Raises DataError when there are none, several zooms to choose from, two images of one tile, or a folder that cannot
    be read; ImageError when the first image cannot be read, whose size decides the metres of a pixel.
    """
    zoom = _choose_zoom(folder, options.zoom)
    files, broken = _files(folder / str(zoom), zoom, options.tms)
    if not files:
        raise DataError(
            f"{folder / str(zoom)} holds no map tiles named X/Y with {', '.join(sorted(SUFFIXES))}."
            + (f" The first of {len(broken)} other files: {broken[0]}." if broken else "")
        )
    corners, incomplete = _corners(files, options.merge, options.step or options.merge)
    if not corners:
        raise DataError(f"{folder}: nowhere are there {options.merge} x {options.merge} tiles to merge. Merge fewer.")
    side = _side(files[corners[0]])
    notes = [f"Map tiles of zoom {zoom}, {side} pixels each" + (", y counted from the south." if options.tms else ".")]
    if broken:
        notes.append(f"{len(broken)} files are left out: their names are no tile's of zoom {zoom}. First: {broken[0]}.")
    if incomplete:
        notes.append(f"{incomplete} references are left out: not all of their {options.merge**2} tiles are there.")
    tiles = [_tile(x, y, zoom, files[x, y], side, options.merge) for x, y in corners]
    return XyzTiles(str(folder), tiles, tuple(notes), files, side, options.merge)


def _choose_zoom(folder: Path, asked: int | None) -> int:
    zooms = sorted(zoom for zoom, path in _numbered(folder) if zoom <= MAX_ZOOM and any(_numbered(path)))
    if asked in zooms:
        return asked
    if asked is None and len(zooms) == 1:
        return zooms[0]
    held = f"{folder} holds the zooms {', '.join(map(str, zooms))}" if zooms else f"{folder} holds no folders Z/X"
    raise DataError(f"{held}; " + ("choose one: --zoom Z" if asked is None else f"there is no {asked}."))


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


def _corners(files: Iterable[tuple[int, int]], merge: int, step: int) -> tuple[list[tuple[int, int]], int]:
    """The upper left tiles of references that have all their tiles, and the number of references that lack some."""
    there = set(files)
    first_x, first_y = (min(at[axis] for at in there) for axis in (0, 1))
    corners = [(x, y) for x, y in sorted(there) if (x - first_x) % step == 0 and (y - first_y) % step == 0]
    whole = [
        (x, y)
        for x, y in corners
        if all((x + right, y + down) in there for right in range(merge) for down in range(merge))
    ]
    return whole, len(corners) - len(whole)


def _side(path: Path) -> int:
    width, height = decode(path).image.size
    if height != width:
        raise ImageError(f"{path} has {width}x{height} pixels; a map tile is square. Replace or remove it.")
    return width


def _tile(x: int, y: int, zoom: int, file: Path, side: int, merge: int) -> Tile:
    lat, lon = place(x + merge / 2, y + merge / 2, zoom)
    return Tile(
        id=f"{zoom}/{x}/{y}" + (f"+{merge}" if merge > 1 else ""),
        file=str(file),
        lat=lat,
        lon=lon,
        heading=0.0,
        metres_per_pixel=metres_per_pixel(lat, zoom, side),
        more={"zoom": zoom, "x": x, "y": y},
    )
