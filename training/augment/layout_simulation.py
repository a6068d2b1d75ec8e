"""Layout simulation: mirror and turns, the same for both views, so that a pair stays a pair.

Source: Zhang et al., AAAI 2023, section 3.3. Works on whole batches of pixels, uint8 [B, H, W, 3], on their device.
Column 0 of a panorama and of a polar aerial image looks south, so a true mirror keeps column 0 in place, and a turn and
its reverse undo each other; the official release is one column off in both.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Layout = Literal["strong", "weak", "any-angle", "none"]
"""strong: mirror and quarter turns; weak: mirror alone; any-angle: mirror and any turn, for polar pairs only."""


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """One change per pair: first `mirrored`, bool [B], east to west; then `turn`, float32 [B], clockwise.

    Turns are counted in full turns: 0.25 is a quarter clockwise, -0.25 a quarter back. The tensors are small and live
    on the CPU, whatever device the images are on.
    """

    turn: Tensor
    mirrored: Tensor

    @property
    def idle(self) -> bool:
        """Whether every image stays as it is."""
        return not bool(self.turn.any() or self.mirrored.any())

    def rows(self, chosen: slice) -> "LayoutChange":
        """The changes of some pairs of the batch: a process's own, where several share one batch."""
        return LayoutChange(self.turn[chosen], self.mirrored[chosen])

    def turned(self, by: Tensor) -> "LayoutChange":
        """The same changes, then a turn more, float32 [B] in full turns: of one view alone, it parts the pairs."""
        return LayoutChange(self.turn + by, self.mirrored)


def draw_layout(strength: Layout, pairs: int, generator: torch.Generator) -> LayoutChange:
    """Draw a change for each of `pairs` pairs from a CPU `generator`: each turn and both reflections equally likely.

    Every strength takes as many numbers off the generator, so that two strengths are compared on the same batches.
    """
    turn = torch.rand(pairs, generator=generator)
    mirrored = torch.rand(pairs, generator=generator) < 0.5
    if strength == "strong":
        turn = torch.floor(turn * 4) / 4
    elif strength != "any-angle":
        turn = torch.zeros_like(turn)
    if strength == "none":
        mirrored = torch.zeros_like(mirrored)
    return LayoutChange(turn, mirrored)


def draw_heading_errors(degrees: float, pairs: int, generator: torch.Generator) -> Tensor:
    """How far each of `pairs` headings is off, float32 [B] in full turns: uniform within `degrees` either way."""
    return (torch.rand(pairs, generator=generator) * 2 - 1) * (degrees / 360)


def reversed_change(change: LayoutChange) -> LayoutChange:
    """The change that undoes `change`. A mirrored one undoes itself: the mirror reverses the turn's sense."""
    return LayoutChange(torch.where(change.mirrored, change.turn, -change.turn), change.mirrored)


def change_unrolled(images: Tensor, change: LayoutChange) -> Tensor:
    """Apply `change` to panoramas or polar aerial images: mirror about column 0, then shift the width circularly.

    A turn is rounded to whole columns, halves to the even one, so that no pixel is interpolated and every change is
    undone exactly by its reverse. Where a quarter is no whole number of columns, quarters still undo each other, but do
    not add up: at width 671 (167.75 columns) left and right shift by 168, a half turn by 336, and two half turns leave
    the image one column off. Both views are rounded alike where they are equally wide.
    """
    if change.idle:
        return images
    height, width, channels = images.shape[1:]
    shift = torch.round(change.turn * width).long()[:, None]
    source = (torch.arange(width) - shift) % width
    source = torch.where(change.mirrored[:, None], (-source) % width, source).to(images.device)
    return images.gather(2, source[:, None, :, None].expand(-1, height, -1, channels))


def change_square(images: Tensor, change: LayoutChange) -> Tensor:
    """Apply `change` to north-up square aerial images, exactly: left-right mirror, then clockwise quarter turns.

    Raises ValueError for a turn that is no whole number of quarters: rounding it would part the pair.
    """
    if change.idle:
        return images
    if not torch.equal(torch.round(change.turn * 4), change.turn * 4):
        raise ValueError(f"A square image turns by quarters; the turns are {change.turn.tolist()}.")
    changed = torch.where(change.mirrored.to(images.device)[:, None, None, None], images.flip(2), images)
    quarters = (change.turn * 4).long() % 4
    for quarter in (1, 2, 3):
        # Found on the CPU, so that a GPU is not waited for.
        rows = torch.nonzero(quarters == quarter)[:, 0].to(images.device)
        changed[rows] = torch.rot90(changed[rows], -quarter, dims=(1, 2))
    return changed
