"""What a source covers: its tiles where they lie, or dots for them, on a map."""

import os
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.maps import Map, new_map
from geodtr.export.plots.theme import themed
from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.coverage import Coverage, positions
from geodtr.runtime.sources.tile import Tile, TileSource

_MOST_THUMBNAILS = 2000
_LEAST_THUMBNAIL = 6
"""Pixels a side: smaller ones, or more of them, say less than dots do."""


@dataclass(frozen=True, slots=True)
class CoveragePlot:
    """The figure, and why some tiles in it are dots though others are shown."""

    figure: Figure
    unreadable: tuple[str, ...]


@themed
def coverage_plot(source: TileSource, coverage: Coverage, *, track: Track = untracked) -> CoveragePlot:
    """Draw the tiles of `source` that have a position; `coverage` is the result of `measure`.

    Up to 2,000 tiles are read and drawn in their size and heading (in the size of the spacing if their metres per pixel
    are unknown), if that is 6 pixels or more; otherwise each is a dot. Raises DataError when no tile has a position.
    """
    if coverage.frame is None:
        raise DataError(f"{source.name}: none of {coverage.tiles} tiles has a position, so there is nothing to draw.")
    tiles = [tile for tile in source.tiles if tile.lat is not None]
    apart = coverage.spacing_metres or 50
    border = apart / 2 or 1.0  # half a spacing, for centres are not edges
    spacing = "" if coverage.spacing_metres is None else f", {coverage.spacing_metres:.4g} m apart"
    note = (
        f"{coverage.positioned} of {coverage.tiles} tiles with a position{spacing}; "
        f"{coverage.width_metres:.0f} m x {coverage.height_metres:.0f} m from centre to centre"
    )
    drawn = new_map(coverage.frame, (border, border))
    side = (coverage.spacing_metres or 0) * drawn.pixels
    unreadable = list[tuple[Tile, str]]()
    if len(tiles) <= _MOST_THUMBNAILS and (side >= _LEAST_THUMBNAIL or len(tiles) == 1):
        unreadable = _draw_tiles(drawn, source, tiles, apart, track)
        _draw_dots(drawn, [tile for tile, _ in unreadable], 8, "cannot be read")
        if any(tile.metres_per_pixel is None for tile in tiles):
            note += "; not known how large on the ground: drawn as large as they are apart"
    else:
        _draw_dots(drawn, tiles, 2 * min(4.0, max(0.5, side / 3)), "tile")
    drawn.add_words(source.name, note)
    return CoveragePlot(drawn.figure, tuple(reason for _, reason in unreadable))


def _draw_tiles(
    drawn: Map, source: TileSource, tiles: list[Tile], apart: float, track: Track
) -> list[tuple[Tile, str]]:
    """Every tile's pixels where it lies; returns those that could not be read, and why."""
    unreadable = list[tuple[Tile, str]]()
    (left, right), (bottom, top) = drawn.axes.get_xlim(), drawn.axes.get_ylim()
    canvas = Image.new("RGBA", (round((right - left) * drawn.pixels), round((top - bottom) * drawn.pixels)))
    with closing(work_ahead(source.read, tiles, threads=os.cpu_count(), ahead=8)) as reading:
        for tile, read in track(reading, "Drawing tiles", len(tiles)):
            try:
                image = read.result().image
            except ImageError as error:
                unreadable.append((tile, str(error)))
                continue
            scale = (tile.metres_per_pixel or apart / image.width) * drawn.pixels
            width, height = (max(1, round(side * scale)) for side in image.size)
            # Pillow turns to the left.
            turned = image.resize((width, height)).convert("RGBA").rotate(-(tile.heading or 0), expand=True)
            x, y = drawn.place(*positions([tile]).T)[0]
            corner = (x - left) * drawn.pixels - turned.width / 2, (top - y) * drawn.pixels - turned.height / 2
            canvas.paste(turned, (round(corner[0]), round(corner[1])), turned)
    extent = (left, right, bottom, top)
    drawn.axes.imshow(np.asarray(canvas), extent=extent, interpolation="nearest", aspect="auto", zorder=1)
    return unreadable


def _draw_dots(drawn: Map, tiles: list[Tile], size: float, label: str) -> None:
    if tiles:
        at = drawn.place(*positions(tiles).T)
        drawn.axes.plot(*at.T, "o", color=LIGHT["s1"], markersize=size, markeredgewidth=0, clip_on=False, label=label)
