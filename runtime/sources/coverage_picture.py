"""A picture of what a source covers: its tiles, or dots for them, in a frame of latitude and longitude.

Drawn with Pillow alone, so that the lean runtime can.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.geodesy import Values
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.coverage import Coverage, Frame, positions
from geodtr.runtime.sources.tile import Tile, TileSource

_LONGER_SIDE, _MARGIN, _HEAD, _FOOT = 1100, 90, 70, 80
_LEAST = 160
"""Pixels of a map's shorter side, for tiles in a row."""

_INK, _FAINT, _LINE, _PAPER, _DOT = (40, 40, 40), (120, 120, 120), (215, 215, 215), (255, 255, 255), (31, 98, 180)
_MOST_THUMBNAILS = 2000
_LEAST_THUMBNAIL = 6
"""Pixels a side: smaller ones, or more of them, say less than dots do."""


@dataclass(frozen=True, slots=True)
class CoveragePicture:
    """The picture, RGB, and why some tiles in it are dots though others are shown."""

    picture: Image.Image
    unreadable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Where the frame lies on the picture: `pixels` of it to a metre, `left` and `bottom` its corner."""

    frame: Frame
    pixels: float
    left: float
    bottom: float

    def at(self, lat: Values, lon: Values) -> tuple[Values, Values]:
        """Pixels from the picture's left and top, [N], of places in degrees, [N]."""
        x, y = self.frame.metres(lat, lon)
        return self.left + x * self.pixels, self.bottom - y * self.pixels

    def at_one(self, lat: float, lon: float) -> tuple[float, float]:
        """As `at`, of one place."""
        x, y = self.at(np.array([lat]), np.array([lon]))
        return float(x[0]), float(y[0])


def draw_coverage(source: TileSource, coverage: Coverage, *, track: Track = untracked) -> CoveragePicture:
    """Draw the tiles of `source` that have a position, `coverage` being what `measure` says of them.

    Up to 2,000 tiles are read and drawn in their size and heading (in that of the spacing where their metres per pixel
    are not known), where that is 6 pixels or more; else each is a dot. Raises DataError when no tile has a position.
    """
    if coverage.frame is None:
        raise DataError(f"{source.name}: none of {coverage.tiles} tiles has a position, so there is nothing to draw.")
    tiles = [tile for tile in source.tiles if tile.lat is not None]
    size, canvas = _place(coverage)
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_grid(draw, canvas)
    side = (coverage.spacing_metres or 0) * canvas.pixels
    unreadable, note = list[str](), ""
    if len(tiles) <= _MOST_THUMBNAILS and (side >= _LEAST_THUMBNAIL or len(tiles) == 1):
        unreadable = _draw_tiles(picture, source, tiles, canvas, coverage, track)
        if any(tile.metres_per_pixel is None for tile in tiles):
            note = "; not known how large on the ground: drawn as large as they are apart"
    else:
        _draw_dots(draw, tiles, canvas, radius=min(4.0, max(0.5, side / 3)))
    _draw_words(draw, size, source.name, coverage, canvas, note)
    return CoveragePicture(picture, tuple(unreadable))


def _place(coverage: Coverage) -> tuple[tuple[int, int], _Canvas]:
    """The picture's size, and the frame on it with half a spacing about it, for centres are not edges."""
    frame = coverage.frame
    assert frame is not None
    border = (coverage.spacing_metres or 50) / 2 or 1.0
    wide, high = coverage.width_metres + 2 * border, coverage.height_metres + 2 * border
    pixels = _LONGER_SIDE / max(wide, high)
    width, height = max(_LEAST, ceil(wide * pixels)), max(_LEAST, ceil(high * pixels))
    left = _MARGIN + (width - coverage.width_metres * pixels) / 2
    bottom = _HEAD + (height + coverage.height_metres * pixels) / 2
    return (width + 2 * _MARGIN, height + _HEAD + _FOOT), _Canvas(frame, pixels, left, bottom)


def _draw_grid(draw: ImageDraw.ImageDraw, canvas: _Canvas) -> None:
    """Lines of round latitudes and longitudes over the frame, labelled at its edges."""
    frame, font = canvas.frame, ImageFont.load_default(11)
    width, height = draw.im.size
    right, low = width - _MARGIN, height - _FOOT
    for lat in _rounds(frame.south, frame.north):
        _, y = canvas.at_one(lat, frame.west)
        draw.line((_MARGIN, y, right, y), _LINE)
        draw.text((_MARGIN - 6, y), _degrees(lat, frame.north - frame.south), _FAINT, font, anchor="rm")
    for lon in _rounds(frame.west, frame.east):
        x, _ = canvas.at_one(frame.south, lon)
        draw.line((x, _HEAD, x, low), _LINE)
        label = _degrees((lon + 180) % 360 - 180, frame.east - frame.west)
        draw.text((x, low + 6), label, _FAINT, font, anchor="mt")
    draw.rectangle((_MARGIN, _HEAD, right, low), outline=_FAINT)


def _rounds(low: float, high: float) -> Iterable[float]:
    """Round values between the two, about five; the middle where they are one."""
    if high <= low:
        return [low]
    step = _round((high - low) / 4)
    return [number * step for number in range(ceil(low / step), floor(high / step) + 1)]


def _round(value: float) -> float:
    """1, 2 or 5 times a power of ten, at most `value`."""
    power = 10.0 ** floor(log10(value))
    return max(times * power for times in (1, 2, 5) if times * power <= value)


def _degrees(value: float, span: float) -> str:
    """With as many decimals as tell labels apart."""
    return f"{value:.{5 if span <= 0 else min(8, max(0, ceil(-log10(span / 4)) + 1))}f}°"


def _draw_tiles(
    picture: Image.Image, source: TileSource, tiles: list[Tile], canvas: _Canvas, coverage: Coverage, track: Track
) -> list[str]:
    """Every tile's pixels where it lies; returns why those that could not be read are dots."""
    unreadable = list[str]()
    with closing(work_ahead(source.read, tiles, threads=os.cpu_count(), ahead=8)) as reading:
        for tile, read in track(reading, "Drawing tiles", len(tiles)):
            try:
                image = read.result().image
            except ImageError as error:
                unreadable.append(str(error))
                _draw_dots(ImageDraw.Draw(picture), [tile], canvas, radius=4)
                continue
            _paste(picture, image, tile, canvas, coverage)
    return unreadable


def _paste(picture: Image.Image, image: Image.Image, tile: Tile, canvas: _Canvas, coverage: Coverage) -> None:
    assert tile.lat is not None
    assert tile.lon is not None
    metres = tile.metres_per_pixel or (coverage.spacing_metres or 50) / image.width
    size = (max(1, round(side * metres * canvas.pixels)) for side in image.size)
    # Pillow turns to the left.
    drawn = image.resize((next(size), next(size))).convert("RGBA").rotate(-(tile.heading or 0), expand=True)
    x, y = canvas.at_one(tile.lat, tile.lon)
    picture.paste(drawn, (round(x - drawn.width / 2), round(y - drawn.height / 2)), drawn)


def _draw_dots(draw: ImageDraw.ImageDraw, tiles: Sequence[Tile], canvas: _Canvas, radius: float) -> None:
    at = canvas.at(*positions(tiles).T)
    for x, y in zip(*(values.tolist() for values in at), strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), _DOT)


def _draw_words(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], name: str, coverage: Coverage, canvas: _Canvas, note: str
) -> None:
    """What it is and its figures above, the scale below."""
    width, height = size
    draw.text((_MARGIN, 14), name, _INK, ImageFont.load_default(16))
    spacing = "" if coverage.spacing_metres is None else f", {coverage.spacing_metres:.4g} m apart"
    draw.text(
        (_MARGIN, 40),
        f"{coverage.positioned} of {coverage.tiles} tiles with a position{spacing}; "
        f"{coverage.width_metres:.0f} m x {coverage.height_metres:.0f} m from centre to centre{note}",
        _FAINT,
        ImageFont.load_default(12),
    )
    metres = _round((width - 2 * _MARGIN) / 3 / canvas.pixels)
    right, y = width - _MARGIN, height - 30
    left = right - metres * canvas.pixels
    draw.line((left, y, right, y), _INK, 2)
    for x in (left, right):
        draw.line((x, y - 5, x, y + 5), _INK, 2)
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    draw.text(((left + right) / 2, y - 8), label, _INK, ImageFont.load_default(12), anchor="mb")
