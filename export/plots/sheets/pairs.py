"""A picture of augmented pairs: each original pair, with random variants as in training beside it.

Knows pixels; knows nothing of files and data sets. See `retrieval` for a model's search results.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.sheets.sheet import EDGE, FAINT, INK, fitted, font, new_sheet
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Images, Preprocessing
from geodtr.training.augment.layout_simulation import Layout, LayoutChange, change_layout, changes_columns, draw_layout
from geodtr.training.augment.photometric import Semantic, SemanticChange, change_semantic, draw_semantic

_VIEW, _TILE, _MARGIN, _LINE, _COMPASS = 340, 170, 16, 16, 16
_SQUARE = _TILE + 2 * _COMPASS
"""Height of a square image with its letters."""
_NORTH = LIGHT["bad"]
_POINTS = "SWNE"
"""Directions in a panorama, from column 0 on, a quarter of the width apart; and in a square, clockwise."""
_ADJUSTMENTS = ("brightness", "contrast", "saturation")


@dataclass(frozen=True, slots=True)
class PairVariant:
    """Both views of one pair, uint8 [H, W, 3] each, original or changed, and how they were changed."""

    ground: Images
    aerial: Images
    turn: float
    """Clockwise, in full turns."""
    mirrored: bool
    captions: tuple[str, str, str]
    """For the pair, its ground view, and its aerial view."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """One pair: the original, then its variants. `panorama`, `polar`: a column of the ground or aerial image is a
    direction; otherwise it is a square, north up. `narrow`: the ground image looks ahead, in no known direction.
    """

    variants: tuple[PairVariant, ...]
    panorama: bool
    polar: bool
    narrow: bool


def augmented_rows(
    images: Mapping[Branch, Images],
    how: Mapping[Branch, Preprocessing],
    layout: Layout,
    semantic: Semantic,
    variants: int,
    seed: int,
) -> list[PairRow]:
    """Each pair of `images`, uint8 [N, H, W, 3] that are preprocessed as `how`, in the original and in `variants`
    augmented versions.

    Augmentation is the same as in training: pixels first, separately for each view, then the layout, for both views.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    panorama, polar = (changes_columns(branch, how[branch]) for branch in BRANCHES)
    for one in zip(images["ground"], images["aerial"], strict=True):
        change = draw_layout(layout, variants, generator)
        of_ground, of_aerial = (draw_semantic(semantic, variants, generator) for _ in range(2))
        grounds, aerials = (
            change_layout(change_semantic(_repeated(image, variants), of), change, branch, how[branch]).numpy()
            for image, of, branch in zip(one, (of_ground, of_aerial), BRANCHES, strict=True)
        )
        seen_as = ("as it is", "ground", "aerial, polar-transformed" if polar else "aerial")
        original = PairVariant(one[0], one[1], 0.0, False, seen_as)
        changed = (
            PairVariant(
                ground=grounds[index],
                aerial=aerials[index],
                turn=float(change.turn[index]),
                mirrored=bool(change.mirrored[index]),
                captions=(
                    _layout_caption(change, index),
                    _semantic_caption(of_ground, index),
                    _semantic_caption(of_aerial, index),
                ),
            )
            for index in range(variants)
        )
        rows.append(PairRow((original, *changed), panorama, polar, how["ground"].imagery.is_narrow))
    return rows


def draw_pairs(rows: Sequence[PairRow], title: str) -> Image.Image:
    """The sheet as an RGB picture: a row is a pair, the ground image above the aerial one.

    Letters mark south, west, north and east, so that a change of layout is visible at a glance.
    """
    columns = max(len(row.variants) for row in rows)
    heights = [_height(row) for row in rows]
    head = 2 * _MARGIN + _LINE
    width = _MARGIN + columns * (_VIEW + _MARGIN)
    sheet, draw = new_sheet(width, head + sum(heights) + len(rows) * _MARGIN, _MARGIN, title)
    top = head
    for row, height in zip(rows, heights, strict=True):
        draw.line((_MARGIN, top, sheet.width - _MARGIN, top), EDGE)
        for column, variant in enumerate(row.variants):
            _draw_variant(sheet, variant, row, _MARGIN + column * (_VIEW + _MARGIN), top + _MARGIN // 2)
        top += height + _MARGIN
    return sheet


def _draw_variant(sheet: Image.Image, variant: PairVariant, row: PairRow, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    of_pair, of_ground, of_aerial = variant.captions
    draw.text((left, top), of_pair, INK, font(13))
    draw.text((left, top + _LINE), of_ground, FAINT, font(11))
    top += 2 * _LINE
    if row.panorama:
        ground = fitted(Image.fromarray(variant.ground), _VIEW)
        sheet.paste(ground, (left, top))
        top += ground.height
        for point, place in _places(variant):
            _letter(draw, point, left + place * _VIEW, top + _COMPASS / 2)
        top += _COMPASS
    else:
        _draw_square(sheet, variant.ground, None if row.narrow else variant, left, top)
        top += _SQUARE
    if row.polar:
        aerial = fitted(Image.fromarray(variant.aerial), _VIEW)
        sheet.paste(aerial, (left, top))
        top += aerial.height
    else:
        _draw_square(sheet, variant.aerial, variant, left, top)
        top += _SQUARE
    draw.text((left, top + 2), of_aerial, FAINT, font(11))


def _draw_square(sheet: Image.Image, pixels: Images, variant: PairVariant | None, left: int, top: int) -> None:
    """A square in the middle of its column, with letters all around where a change of a north-up one is given."""
    draw, image = ImageDraw.Draw(sheet), fitted(Image.fromarray(pixels), _TILE)
    sheet.paste(image, (left + (_VIEW - image.width) // 2, top + _COMPASS))
    for point, place in () if variant is None else _places(variant):
        bearing, radius = 2 * math.pi * (place - 0.5), (_TILE + _COMPASS) / 2
        across, down = radius * math.sin(bearing), -radius * math.cos(bearing)
        _letter(draw, point, left + _VIEW / 2 + across, top + _SQUARE / 2 + down)


def _places(variant: PairVariant) -> Iterator[tuple[str, float]]:
    """Where each direction is after the change, from 0 to 1: a share of the columns, from south on."""
    for index, point in enumerate(_POINTS):
        yield point, (variant.turn + (-index if variant.mirrored else index) / 4) % 1


def _letter(draw: ImageDraw.ImageDraw, point: str, x: float, y: float) -> None:
    draw.text((x, y), point, _NORTH if point == "N" else INK, font(12), anchor="mm")


def _repeated(image: Images, times: int) -> torch.Tensor:
    return torch.from_numpy(np.repeat(image[None], times, axis=0))


def _height(row: PairRow) -> int:
    """Height of a row's pictures and captions, in pixels."""
    original = row.variants[0]
    ground = fitted(Image.fromarray(original.ground), _VIEW).height + _COMPASS if row.panorama else _SQUARE
    aerial = fitted(Image.fromarray(original.aerial), _VIEW).height if row.polar else _SQUARE
    return 2 * _LINE + ground + aerial + _LINE


def _layout_caption(change: LayoutChange, index: int) -> str:
    """As in "mirrored, turned 90°", in the order of application."""
    degrees = round(float(change.turn[index]) * 360)
    changes = ["mirrored"] * bool(change.mirrored[index]) + [f"turned {degrees}°"] * (degrees != 0)
    return ", ".join(changes) or "layout kept"


def _semantic_caption(change: SemanticChange, index: int) -> str:
    """As in "contrast +12%, saturation -3%, brightness +28%, grey, blur 2.1", in the order of application."""
    changes = []
    for column in change.order[index].tolist():
        percent = round(100 * float(change.factors[index, column] - 1))
        changes += [f"{_ADJUSTMENTS[column]} {percent:+}%"] * (percent != 0)
    changes += ["grey"] * bool(change.grey[index]) + ["4 bits"] * bool(change.posterised[index])
    sigma = float(change.sigma[index])
    return ", ".join(changes + [f"blur {sigma:.1f}"] * (sigma > 0))
