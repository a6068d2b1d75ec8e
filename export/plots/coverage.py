"""What a source covers: the map with its tiles, or tiles where they lie, or dots for them."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.maps import Map, new_map
from geodtr.export.plots.theme import themed
from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.coverage import Coverage, positions
from geodtr.runtime.sources.mosaic import lay_mosaic
from geodtr.runtime.sources.tile import Tile, TileSource

_MOST_THUMBNAILS = 20_000
_FEW = 1000
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

    Of a map that is cut up, the map is drawn, with the edges of tiles. Up to 20,000 other tiles are read and drawn in
    their size and heading (in the size of the spacing if their metres per pixel are unknown), if that is 6 pixels or
    more; otherwise each is a dot. Raises DataError when no tile has a position.
    """
    if coverage.frame is None:
        raise DataError(f"{source.name}: none of {coverage.tiles} tiles has a position, so there is nothing to draw.")
    first = next(tile for tile in source.tiles if tile.lat is not None)
    apart = coverage.spacing_metres or 50
    wide = _side_of(source, first)
    border = max(apart, wide or 0.0) / 2 or 1.0  # centres are not edges
    spacing = "" if coverage.spacing_metres is None else f", {coverage.spacing_metres:.4g} m apart"
    spacing += "" if wide is None else f", {wide:.4g} m wide"
    note = (
        f"{coverage.positioned} of {coverage.tiles} tiles with a position{spacing}; "
        f"{coverage.width_metres:.0f} m x {coverage.height_metres:.0f} m from centre to centre"
    )
    drawn = new_map(coverage.frame, (border, border))
    side = (coverage.spacing_metres or 0) * drawn.pixels
    unreadable: tuple[tuple[Tile, str], ...] = ()
    legible = side >= _LEAST_THUMBNAIL or coverage.positioned == 1
    cut_up = first.is_window
    # Tiles of a map are made one by one, and where they are not legible there may be millions.
    tiles = [tile for tile in source.tiles if tile.lat is not None] if legible or not cut_up else [first]
    if cut_up or (len(tiles) <= _MOST_THUMBNAILS and legible):
        mosaic = lay_mosaic(source, tiles, *drawn.shown, apart=apart, track=track)
        unreadable = mosaic.unreadable
        drawn.add_picture(mosaic.image)
        if legible and mosaic.sides:
            drawn.add_tiles(mosaic.sides, LIGHT["s1"], 0.8 if len(tiles) <= _FEW else 0.4)
        _draw_dots(drawn, [tile for tile, _ in unreadable], 8, "cannot be read")
        if any(tile.metres_per_pixel is None for tile in tiles):
            note += "; not known how large on the ground: drawn as large as they are apart"
    else:
        _draw_dots(drawn, tiles, 2 * min(4.0, max(0.5, side / 3)), "centre of a tile")
    drawn.add_words(source.name, note)
    return CoveragePlot(drawn.figure, tuple(reason for _, reason in unreadable))


def _side_of(source: TileSource, tile: Tile) -> float | None:
    """Metres a side, by the tile's own pixels; None where they or their scale are not known."""
    if (side := tile.side_metres) is not None or tile.metres_per_pixel is None:
        return side
    try:
        return tile.metres_per_pixel * source.read(tile).image.width
    except ImageError:
        return None


def _draw_dots(drawn: Map, tiles: list[Tile], size: float, label: str) -> None:
    if tiles:
        at = drawn.place(*positions(tiles).T)
        drawn.axes.plot(*at.T, "o", color=LIGHT["s1"], markersize=size, markeredgewidth=0, clip_on=False, label=label)
