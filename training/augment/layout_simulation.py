"""Layout simulation: mirror and rotate both views of a pair alike, so that they still match.

Source: Zhang et al., AAAI 2023, section 3.3. Works on whole batches of pixels, uint8 [B, H, W, 3], on their device.
Column 0 of a panorama and of a polar-transformed tile looks south. An exact mirror keeps column 0 in place, and
opposite rotations cancel; the official release is one column off in both.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.data.views import seen_columns, to_the_middle

Layout = Literal["strong", "weak", "any-angle", "none"]
"""strong: mirror and quarter turns; weak: mirror only; any-angle: mirror and any rotation, for polar pairs only."""


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """One change per pair: first `mirrored`, bool [B], east to west; then `turn`, float32 [B], clockwise.

    The unit of `turn` is a full turn: 0.25 is a quarter turn clockwise. The tensors are always on the CPU.
    """

    turn: Tensor
    mirrored: Tensor

    @property
    def is_identity(self) -> bool:
        """Whether no image changes."""
        return not bool(self.turn.any() or self.mirrored.any())

    def rows(self, rows: slice | Tensor) -> "LayoutChange":
        """The changes of some pairs of the batch, for example of one rank."""
        return LayoutChange(self.turn[rows], self.mirrored[rows])

    def turned(self, by: Tensor) -> "LayoutChange":
        """The same changes followed by a rotation `by`, float32 [B] in full turns. Use it to misalign one view."""
        return LayoutChange(self.turn + by, self.mirrored)

    def followed_by(self, other: "LayoutChange") -> "LayoutChange":
        """These changes, then `other`, as one: a mirror reverses the rotation before it."""
        turn = torch.where(other.mirrored, -self.turn, self.turn) + other.turn
        return LayoutChange(turn, self.mirrored ^ other.mirrored)


def draw_layout(strength: Layout, pairs: int, generator: torch.Generator) -> LayoutChange:
    """Draw a uniform change for each of `pairs` pairs from a CPU `generator`.

    Every strength draws the same count of numbers, so that strengths can be compared on the same batches.
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


def draw_second_layout(strength: Layout, pairs: int, generator: torch.Generator) -> LayoutChange:
    """Draw what makes the second view of each pair from the first one: for "strong" one of the seven changes that
    differ from the identity, for "any-angle" any change. "weak" and "none" leave the layout as it is.

    Source: Zhang et al., "GeoDTR+", TPAMI 2024, section 3.4, and its release.
    """
    if strength == "any-angle":
        return draw_layout(strength, pairs, generator)
    if strength != "strong":
        return LayoutChange(torch.zeros(pairs), torch.zeros(pairs, dtype=torch.bool))
    number = torch.randint(1, 8, (pairs,), generator=generator)
    return LayoutChange((number % 4) / 4, number >= 4)


def draw_heading_errors(degrees: float, pairs: int, generator: torch.Generator) -> Tensor:
    """Draw a heading error for each of `pairs` pairs, float32 [B] in full turns: uniform within +-`degrees`."""
    return (torch.rand(pairs, generator=generator) * 2 - 1) * (degrees / 360)


def changes_columns(branch: Branch, how: Preprocessing) -> bool:
    """Whether the layout of a branch's images changes by columns, as of panoramas and polar-transformed tiles: others,
    tiles and nadir frames, are north-up squares, and images that look ahead can be mirrored as these are.
    """
    return how.polar if branch == "aerial" else not (how.imagery.projection == "nadir" or how.imagery.is_narrow)


def change_layout(images: Tensor, change: LayoutChange, branch: Branch, how: Preprocessing) -> Tensor:
    """Apply `change` to images of a branch that are preprocessed as `how`. Raises ValueError as `change_square`."""
    return (change_columns if changes_columns(branch, how) else change_square)(images, change)


def change_columns(images: Tensor, change: LayoutChange, seen: int | None = None) -> Tensor:
    """Apply `change` to panoramas or polar-transformed tiles: mirror about column 0, then shift columns circularly.

    With `seen`, only as many columns about the middle are returned: what a smaller field of view sees.

    A rotation is rounded to whole columns, halves to even, so that no pixel is interpolated and each change has an
    exact inverse. If a quarter turn is not a whole number of columns, opposite quarters cancel, but quarters do not add
    up: at width 671 (167.75 columns) a quarter shifts by 168, a half turn by 336, and two half turns leave the image
    one column off. Views of the same width are rounded alike.
    """
    height, width, channels = images.shape[1:]
    seen = seen or width
    if change.is_identity and seen == width:
        return images
    shift = torch.round(change.turn * width).long() + to_the_middle(width, seen)
    source = torch.from_numpy(seen_columns(shift.numpy(), width, seen))
    source = torch.where(change.mirrored[:, None], (-source) % width, source).to(images.device)
    return images.gather(2, source[:, None, :, None].expand(-1, height, -1, channels))


def change_square(images: Tensor, change: LayoutChange) -> Tensor:
    """Apply `change` to north-up square tiles, exactly: left-right mirror, then clockwise quarter turns.

    Raises ValueError for a rotation that is not a whole number of quarter turns; rounding it would misalign the pair.
    """
    if change.is_identity:
        return images
    if not torch.equal(torch.round(change.turn * 4), change.turn * 4):
        raise ValueError(f"A square image can rotate only by quarter turns; the turns are {change.turn.tolist()}.")
    changed = torch.where(change.mirrored.to(images.device)[:, None, None, None], images.flip(2), images)
    quarters = (change.turn * 4).long() % 4
    for quarter in (1, 2, 3):
        # Computed on the CPU to avoid a GPU synchronisation.
        rows = torch.nonzero(quarters == quarter)[:, 0].to(images.device)
        if len(rows):  # an image that is no square has none
            changed[rows] = torch.rot90(changed[rows], -quarter, dims=(1, 2))
    return changed
