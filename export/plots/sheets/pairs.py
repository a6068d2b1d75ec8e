"""A picture of augmented pairs: each original pair, with random variants as in training beside it.

Knows pixels; knows nothing of files and data sets. See `retrieval` for a model's search results.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.sheets.sheet import EDGE, FAINT, INK, fitted, font, new_sheet
from geodtr.runtime.spec import Images
from geodtr.training.augment.layout_simulation import Layout, LayoutChange, change_columns, change_square, draw_layout
from geodtr.training.augment.photometric import Semantic, SemanticChange, change_semantic, draw_semantic

_VIEW, _TILE, _MARGIN, _LINE, _COMPASS = 340, 170, 16, 16, 16
_NORTH = LIGHT["bad"]
_POINTS = "SWNE"
"""Directions in a panorama, from column 0 on, a quarter of the width apart."""
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
    """One pair: the original, then its variants. `polar`: the aerial image is polar-transformed."""

    variants: tuple[PairVariant, ...]
    polar: bool


def augmented_rows(
    ground: Images, aerial: Images, polar: bool, layout: Layout, semantic: Semantic, variants: int, seed: int
) -> list[PairRow]:
    """Each pair of ground and aerial, uint8 [N, H, W, 3], in the original and in `variants` augmented versions.

    Augmentation is the same as in training: pixels first, separately for each view, then the layout, for both views.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for one_ground, one_aerial in zip(ground, aerial, strict=True):
        change = draw_layout(layout, variants, generator)
        of_ground, of_aerial = (draw_semantic(semantic, variants, generator) for _ in range(2))
        change_aerial = change_columns if polar else change_square
        grounds = change_columns(change_semantic(_repeated(one_ground, variants), of_ground), change).numpy()
        aerials = change_aerial(change_semantic(_repeated(one_aerial, variants), of_aerial), change).numpy()
        seen_as = ("as it is", "ground", "aerial, polar-transformed" if polar else "aerial")
        original = PairVariant(one_ground, one_aerial, 0.0, False, seen_as)
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
        rows.append(PairRow((original, *changed), polar))
    return rows


def draw_pairs(rows: Sequence[PairRow], title: str) -> Image.Image:
    """The sheet as an RGB picture: a row is a pair, the panorama above the aerial image.

    Letters between the two mark south, west, north and east, so that a change of layout is visible at a glance.
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
            _draw_variant(sheet, variant, row.polar, _MARGIN + column * (_VIEW + _MARGIN), top + _MARGIN // 2)
        top += height + _MARGIN
    return sheet


def _draw_variant(sheet: Image.Image, variant: PairVariant, polar: bool, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    of_pair, of_ground, of_aerial = variant.captions
    draw.text((left, top), of_pair, INK, font(13))
    draw.text((left, top + _LINE), of_ground, FAINT, font(11))
    top += 2 * _LINE
    ground = fitted(Image.fromarray(variant.ground), _VIEW)
    sheet.paste(ground, (left, top))
    top += ground.height
    aerial = fitted(Image.fromarray(variant.aerial), _VIEW if polar else _TILE)
    # A square tile has its own letters all around.
    aerial_top = top + (_COMPASS if polar else 2 * _COMPASS)
    middle = aerial_top + aerial.height / 2
    sheet.paste(aerial, (left + (_VIEW - aerial.width) // 2, aerial_top))
    for index, point in enumerate(_POINTS):
        place = (variant.turn + (-index if variant.mirrored else index) / 4) % 1
        ink = _NORTH if point == "N" else INK
        draw.text((left + place * _VIEW, top + _COMPASS / 2), point, ink, font(12), anchor="mm")
        if not polar:
            bearing, radius = 2 * math.pi * (place - 0.5), (_TILE + _COMPASS) / 2
            across, down = radius * math.sin(bearing), -radius * math.cos(bearing)
            draw.text((left + _VIEW / 2 + across, middle + down), point, ink, font(12), anchor="mm")
    below = aerial_top + aerial.height + (0 if polar else _COMPASS)
    draw.text((left, below + 2), of_aerial, FAINT, font(11))


def _repeated(image: Images, times: int) -> torch.Tensor:
    return torch.from_numpy(np.repeat(image[None], times, axis=0))


def _height(row: PairRow) -> int:
    """Height of a row's pictures and captions, in pixels."""
    original = row.variants[0]
    ground = fitted(Image.fromarray(original.ground), _VIEW).height
    aerial = fitted(Image.fromarray(original.aerial), _VIEW).height if row.polar else _TILE + 2 * _COMPASS
    return 2 * _LINE + ground + _COMPASS + aerial + _LINE


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
