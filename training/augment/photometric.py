"""Photometric augmentation (the paper's "semantic augmentation"): colour, detail and sharpness, per view.

Source: Zhang et al., AAAI 2023, section 4.2, and the official release: colour jitter, greyscale, posterisation and
Gaussian blur, in this order. Works on whole batches of pixels, uint8 [B, H, W, 3], on their device. Each image has its
own draws; torchvision's transforms use one draw per batch. Row i of the result depends only on row i of the images and
of the change, to the last bit, so that any number of processes gives the same pixels. Hence integer sums and
elementwise arithmetic, and no convolution: its rounding depends on the batch size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Semantic = Literal["strong", "weak", "none"]
"""strong and weak as in the paper; none leaves the pixels unchanged."""

CONTRAST, SATURATION = 1, 2
"""Columns of `SemanticChange.factors`; column 0 is brightness."""

_UPPER_FOUR_BITS = 0b1111_0000
_SIGMAS = (0.1, 5.0)


@dataclass(frozen=True, slots=True)
class SemanticChange:
    """One change per image; the tensors are always on the CPU."""

    factors: Tensor
    """float32 [B, 3]: brightness, contrast, saturation; 1 changes nothing."""
    order: Tensor
    """int64 [B, 3]: the columns of `factors` in order of application."""
    grey: Tensor
    """bool [B]."""
    posterised: Tensor
    """bool [B]: whether to keep only the upper four bits."""
    sigma: Tensor
    """float32 [B]: standard deviation of the Gaussian blur, in rows; 0 disables it."""

    @property
    def is_identity(self) -> bool:
        """Whether no image changes."""
        return not bool((self.factors != 1).any() or self.grey.any() or self.posterised.any() or self.sigma.any())

    def apply(self, images: Tensor) -> Tensor:
        """Images uint8 [B, H, W, 3], changed."""
        return change_semantic(images, self)

    def rows(self, rows: slice) -> "SemanticChange":
        """The changes of some images of the batch, for example of one rank."""
        tensors = self.factors, self.order, self.grey, self.posterised, self.sigma
        return SemanticChange(*(tensor[rows] for tensor in tensors))


@dataclass(frozen=True, slots=True)
class _Strength:
    """Factors are uniform from 1 - jitter to 1 + jitter; `grey` and `posterised` are probabilities."""

    jitter: float
    grey: float
    posterised: float
    blurred: bool


_STRENGTHS: Mapping[Semantic, _Strength] = {
    "strong": _Strength(jitter=0.3, grey=0.2, posterised=0.2, blurred=True),
    "weak": _Strength(jitter=0.1, grey=0.1, posterised=0.0, blurred=False),
    "none": _Strength(jitter=0.0, grey=0.0, posterised=0.0, blurred=False),
}


def draw_semantic(strength: Semantic, images: int, generator: torch.Generator) -> SemanticChange:
    """Draw a change for each of `images` images of one view from a CPU `generator`.

    Every strength draws the same count of numbers, so that strengths can be compared on the same batches.
    """
    how = _STRENGTHS[strength]
    factors = 1 + how.jitter * (2 * torch.rand(images, 3, generator=generator) - 1)
    order = torch.rand(images, 3, generator=generator).argsort(dim=1)
    grey, posterised, sigma = torch.rand(3, images, generator=generator)
    least, most = _SIGMAS
    return SemanticChange(
        factors=factors,
        order=order,
        grey=grey < how.grey,
        posterised=posterised < how.posterised,
        sigma=least + (most - least) * sigma if how.blurred else torch.zeros(images),
    )


def change_semantic(images: Tensor, change: SemanticChange) -> Tensor:
    """Apply `change` to images of one view, uint8 [B, H, W, 3] in and out. Returns the same tensor if nothing changes.

    Computes in float32 and rounds to whole levels twice: before posterisation, which is defined on levels, and after
    the blur. Each rounding loses at most half a level; torchvision truncates after each adjustment. The memory layout
    is planar, as a network needs it. Images to blur need at least 3 rows.
    """
    if change.is_identity:
        return images
    # One plane per colour: arithmetic on whole planes is several times faster than on every third value.
    planes = images.movedim(3, 1).to(torch.float32, memory_format=torch.contiguous_format)
    if bool((change.factors != 1).any()):
        _jitter(planes, change)
    # Row numbers are computed on the CPU to avoid a GPU synchronisation.
    grey = torch.nonzero(change.grey)[:, 0].to(images.device)
    planes[grey] = _luma(planes[grey]).expand(-1, 3, -1, -1)
    planes.round_()
    posterised = torch.nonzero(change.posterised)[:, 0].to(images.device)
    planes[posterised] = (planes[posterised].to(torch.uint8) & _UPPER_FOUR_BITS).float()
    if bool(change.sigma.any()):
        _blur(planes, change.sigma)
        planes.round_()
    return planes.to(torch.uint8).movedim(1, 3)


def _jitter(planes: Tensor, change: SemanticChange) -> None:
    """Change brightness, contrast and saturation of float32 [B, 3, H, W] in place, each image in its own order.

    Each scales a pixel's distance from an anchor: black, the image's mean grey, or the pixel's own grey.
    """
    pixels = planes.shape[2] * planes.shape[3]
    for column in change.order.unbind(dim=1):
        factor = change.factors.gather(1, column[:, None])[:, 0]
        weight = _per_image(factor, planes.device)
        grey_weight = _per_image((1 - factor) * (column == SATURATION), planes.device)
        mean_weight = _per_image((1 - factor) * (column == CONTRAST), planes.device)
        grey = _luma(planes)
        # Whole levels, as in torchvision: an integer sum does not depend on the order, a float sum does.
        mean = grey.to(torch.int32).sum(dim=(2, 3), keepdim=True) / pixels
        planes.mul_(weight).add_(grey.mul_(grey_weight).add_(mean * mean_weight)).clamp_(0, 255)


def _blur(planes: Tensor, sigma: Tensor) -> None:
    """Blur float32 [B, 3, H, W] vertically in place over five rows, edges reflected, each image with its own `sigma`.

    The release's kernel_size (1, 5) is (horizontal, vertical) in torchvision, so only rows are mixed.
    """
    # In float64, so that the rounded weights do not depend on the CPU's vector instructions.
    distance = torch.arange(3, dtype=torch.float64) / sigma.double()[:, None]
    weights = torch.exp(-(distance**2) / 2)
    weights[:, 0] = 1
    weights /= weights[:, :1] + 2 * weights[:, 1:].sum(dim=1, keepdim=True)
    middle, near, far = (_per_image(weight.float(), planes.device) for weight in weights.unbind(dim=1))
    rows = planes.shape[2]
    padded = F.pad(planes, (0, 0, 2, 2), mode="reflect")
    above2, above, _, below, below2 = (padded[:, :, first : first + rows] for first in range(5))
    planes.mul_(middle).add_((above + below).mul_(near)).add_((above2 + below2).mul_(far))


def _luma(planes: Tensor) -> Tensor:
    """Grey of float32 [B, 3, H, W], [B, 1, H, W], with torchvision's weights."""
    red, green, blue = planes.unbind(dim=1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)[:, None]


def _per_image(values: Tensor, device: torch.device) -> Tensor:
    """[B] on the CPU as [B, 1, 1, 1] on `device`."""
    return values.to(device)[:, None, None, None]
