"""Layout simulation: mirror and turns, the same for both views, so that a pair stays a pair.

Source: Zhang et al., AAAI 2023, section 3.3. Works on whole batches of pixels [B, H, W, C]. Column 0 of a panorama and
of a polar aerial image looks south, so a true mirror keeps column 0 in place, and a turn and its reverse undo each
other; the official release is one column off in both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """One change per pair: `turn` float32 [B], clockwise, in full turns (0 to 1); `mirrored` bool [B], east to west."""

    turn: Tensor
    mirrored: Tensor


def random_quarter_turns(pairs: int, generator: torch.Generator) -> LayoutChange:
    """Each of the four quarter turns and both reflections with equal chance ("strong" in the paper)."""
    return LayoutChange(torch.randint(4, (pairs,), generator=generator) / 4, _coin(pairs, generator))


def random_turns(pairs: int, generator: torch.Generator) -> LayoutChange:
    """Any angle and both reflections with equal chance: more variety, for views that are both unrolled."""
    return LayoutChange(torch.rand(pairs, generator=generator), _coin(pairs, generator))


def change_unrolled(images: Tensor, change: LayoutChange) -> Tensor:
    """Apply `change` to panoramas or polar aerial images: mirror about column 0, then shift the width circularly."""
    height, width, channels = images.shape[1:]
    shift = torch.round(change.turn * width).long()[:, None]
    source = (torch.arange(width)[None, :] - shift) % width
    source = torch.where(change.mirrored[:, None], (-source) % width, source)
    return images.gather(2, source[:, None, :, None].expand(-1, height, -1, channels))


def change_square(images: Tensor, change: LayoutChange) -> Tensor:
    """Apply `change` to north-up square aerial images: left-right mirror, then clockwise quarter turns."""
    changed = torch.where(change.mirrored[:, None, None, None], images.flip(2), images)
    quarters = torch.round(change.turn * 4).long() % 4
    for quarter in (1, 2, 3):
        chosen = quarters == quarter
        changed[chosen] = torch.rot90(changed[chosen], -quarter, dims=(1, 2))
    return changed


def _coin(pairs: int, generator: torch.Generator) -> Tensor:
    return torch.rand(pairs, generator=generator) < 0.5
