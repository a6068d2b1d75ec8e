"""The ground as one picture: tiles side by side where they lie, or the map that they were cut from.

Knows tiles and their pixels; knows nothing of what is drawn over them.
"""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from geodtr.runtime.errors import ImageError, UserError
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.coverage import Frame, positions
from geodtr.runtime.sources.overview import read_overview
from geodtr.runtime.sources.raster.geotiff import GeoTiff
from geodtr.runtime.sources.tile import Tile


class Pixels(Protocol):
    """Where tiles' pixels come from: a TileSource, or what a gallery was built from."""

    def read(self, tile: Tile) -> Decoded:
        """Raises ImageError naming the tile."""
        ...


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The picture, RGBA, transparent where nothing is known; the sides of the tiles in it in metres; and what of them
    could not be read, with the reasons.
    """

    image: Image.Image
    sides: tuple[tuple[Tile, float], ...]
    unreadable: tuple[tuple[Tile, str], ...]


def lay_mosaic(
    pixels: Pixels,
    tiles: Sequence[Tile],
    frame: Frame,
    size: tuple[int, int],
    *,
    apart: float | None = None,
    track: Track = untracked,
) -> Mosaic:
    """Lay `tiles`, which have positions, into a picture of the frame in `size` pixels. Of a map that was cut up, the
    map itself is read, once. A tile whose metres per pixel are unknown is `apart` metres wide, and left out without.
    """
    image = Image.new("RGBA", size)
    sides, unreadable = list[tuple[Tile, float]](), list[tuple[Tile, str]]()
    cut: dict[str, list[Tile]] = {}
    whole = list[Tile]()
    for tile in tiles:
        if tile.is_window:
            cut.setdefault(tile.file, []).append(tile)
        else:
            whole.append(tile)
    bands = pixels.bands if isinstance(pixels, GeoTiff) else None
    for path, windows in cut.items():
        try:
            image.alpha_composite(read_overview(Path(path), bands, frame, size))
        except UserError as error:
            unreadable += [(tile, str(error)) for tile in windows]
        sides += [(tile, side) for tile in windows if (side := tile.side_metres) is not None]
    if not whole:
        return Mosaic(image, tuple(sides), tuple(unreadable))
    scale = size[0] / frame.size[0]
    with closing(work_ahead(pixels.read, whole, threads=os.cpu_count(), ahead=8)) as reading:
        for tile, read in track(reading, "Drawing tiles", len(whole)):
            try:
                picture = read.result().image
            except ImageError as error:
                unreadable.append((tile, str(error)))
                continue
            side = apart if tile.metres_per_pixel is None else tile.metres_per_pixel * picture.width
            if side is not None:
                _paste(image, picture, tile, side, frame, scale)
                sides.append((tile, side))
    return Mosaic(image, tuple(sides), tuple(unreadable))


def _paste(image: Image.Image, picture: Image.Image, tile: Tile, side: float, frame: Frame, scale: float) -> None:
    """`scale`: pixels of a metre."""
    width, height = (max(1, round(pixels * side / picture.width * scale)) for pixels in picture.size)
    if max(width, height) > 4 * max(image.size):
        return  # the tile is far larger than the frame, or its scale is no scale
    # Pillow turns to the left.
    turned = picture.resize((width, height)).convert("RGBA").rotate(-(tile.heading or 0), expand=True)
    east, north = (float(metres[0]) for metres in frame.metres(*positions([tile]).T))
    corner = round(east * scale - turned.width / 2), round(image.height - north * scale - turned.height / 2)
    image.paste(turned, corner, turned)
