"""Views of full panoramas in training: in each epoch, each pair's panorama is rolled and cut in another way.

A view belongs to the seed, the epoch and the pair, not to a batch: any batch size and any number of processes see the
same. Works on batches of pixels, uint8 [B, H, W, 3], on their device. The idea of several fields of view, and of the
full turn beside them, is from Mi et al., "ConGeo", ECCV 2024.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geodtr.training.augment.layout_simulation import LayoutChange, change_columns, draw_heading_errors
from geodtr.training.data.views import columns_of


@dataclass(frozen=True, slots=True)
class DrawnViews:
    """Of each pair: `field`, int64 [N], the number of its field of view, and the heading errors of the view and of the
    full turn beside it, float32 [N] each, in full turns.
    """

    field: Tensor
    turn: Tensor
    turn_of_all: Tensor

    def rows(self, rows: Tensor) -> "DrawnViews":
        """The views of some pairs, by their numbers."""
        return DrawnViews(self.field[rows], self.turn[rows], self.turn_of_all[rows])


def draw_views(fields: int, heading_error: float, pairs: int, generator: torch.Generator) -> DrawnViews:
    """One of so many fields of view for each of `pairs` pairs, and heading errors within +-`heading_error` degrees."""
    field = torch.randint(fields, (pairs,), generator=generator)
    turn, turn_of_all = (draw_heading_errors(heading_error, pairs, generator) for _ in range(2))
    return DrawnViews(field, turn, turn_of_all)


def cut_views(panoramas: Tensor, change: LayoutChange, field: Tensor, fields: Sequence[float], width: int) -> Tensor:
    """Change full panoramas and cut each to its field of view, uint8 [B, H, width, 3].

    The smallest of `fields` (degrees) is `width` columns of the panoramas; wider views are resized to as many, as
    Pillow's bilinear filter does.
    """
    views = panoramas.new_empty((len(panoramas), panoramas.shape[1], width, panoramas.shape[3]))
    smallest = min(fields)
    for number, degrees in enumerate(fields):
        rows = torch.nonzero(field == number)[:, 0]
        if not len(rows):
            continue
        seen = width if degrees == smallest else columns_of(degrees, panoramas.shape[2])
        here = rows.to(panoramas.device)
        views[here] = _resized(change_columns(panoramas[here], change.rows(rows), seen), width)
    return views


def whole_views(panoramas: Tensor, change: LayoutChange, width: int) -> Tensor:
    """Change full panoramas and resize them to `width` columns, uint8 [B, H, width, 3]."""
    return _resized(change_columns(panoramas, change), width)


def _resized(images: Tensor, width: int) -> Tensor:
    if images.shape[2] == width:
        return images
    pixels = images.permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, (images.shape[1], width), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
