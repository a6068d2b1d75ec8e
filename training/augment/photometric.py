"""Semantic augmentation: colour, detail and sharpness change, each view on its own; the layout stays.

Source: Zhang et al., AAAI 2023, section 4.2, and the official release: colour jitter, greyscale, posterisation and
Gaussian blur, in this order. Works on whole batches of pixels, uint8 [B, H, W, 3], on their device, with every image's
own draws: torchvision's transforms take one for a whole batch. Row i of the result depends on row i of the images and
of the change alone, to the last bit, so that a batch shared by several processes gives the same pixels: hence sums of
integers and elementwise arithmetic, and no convolution, whose rounding depends on the size of the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import posterize, rgb_to_grayscale

Semantic = Literal["strong", "weak", "none"]
"""strong and weak as in the paper; none leaves the pixels as they are."""

CONTRAST, SATURATION = 1, 2
"""Columns of `SemanticChange.factors`; column 0 is brightness."""

_POSTERISED_BITS = 4
_SIGMAS = (0.1, 5.0)


@dataclass(frozen=True, slots=True)
class SemanticChange:
    """One change per image; small tensors that live on the CPU, whatever device the images are on."""

    factors: Tensor
    """float32 [B, 3]: brightness, contrast, saturation; 1 changes nothing."""
    order: Tensor
    """int64 [B, 3]: the columns of `factors` in the order in which they are applied."""
    grey: Tensor
    """bool [B]."""
    posterised: Tensor
    """bool [B]: whether only the upper four bits are kept."""
    sigma: Tensor
    """float32 [B]: the Gaussian blur's standard deviation in rows; 0 leaves the image sharp."""

    @property
    def idle(self) -> bool:
        """Whether every image stays as it is."""
        return not bool((self.factors != 1).any() or self.grey.any() or self.posterised.any() or self.sigma.any())

    def rows(self, chosen: slice) -> "SemanticChange":
        """The changes of some images of the batch: a process's own, where several share one batch."""
        return SemanticChange(
            factors=self.factors[chosen],
            order=self.order[chosen],
            grey=self.grey[chosen],
            posterised=self.posterised[chosen],
            sigma=self.sigma[chosen],
        )


@dataclass(frozen=True, slots=True)
class _Strength:
    """Factors are drawn from 1 - jitter to 1 + jitter; `grey` and `posterised` are chances."""

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

    Every strength takes as many numbers off the generator, so that two strengths are compared on the same batches.
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
    """Apply `change` to images of one view: uint8 [B, H, W, 3] in and out; the very same tensor when nothing changes.

    The result is what a camera could deliver and what engines are fed, at a quarter of the memory of float32. It is
    worked out in float32 and rounded to whole levels twice: before posterisation, which is defined on them, and after
    the blur. So either loses half a level at most, where torchvision cuts off the fraction after each adjustment.
    Memory is laid out in planes, as a network will want it. An image to blur has at least 3 rows.
    """
    if change.idle:
        return images
    # One plane a colour: arithmetic on whole planes is several times faster than on every third value.
    planes = images.movedim(3, 1).to(torch.float32, memory_format=torch.contiguous_format)
    if bool((change.factors != 1).any()):
        _jitter(planes, change)
    # Rows are found on the CPU, so that a GPU is not waited for.
    grey = torch.nonzero(change.grey)[:, 0].to(images.device)
    planes[grey] = _luma(planes[grey]).expand(-1, 3, -1, -1)
    planes.round_()
    posterised = torch.nonzero(change.posterised)[:, 0].to(images.device)
    planes[posterised] = posterize(planes[posterised].to(torch.uint8), _POSTERISED_BITS).float()
    if bool(change.sigma.any()):
        _blur(planes, change.sigma)
        planes.round_()
    return planes.to(torch.uint8).movedim(1, 3)


def _jitter(planes: Tensor, change: SemanticChange) -> None:
    """Change brightness, contrast and saturation of float32 [B, 3, H, W] in place, each image in its own order.

    Each of the three moves a pixel away from an anchor: black, the image's mean grey, or the pixel's own grey.
    """
    pixels = planes.shape[2] * planes.shape[3]
    for column in change.order.unbind(dim=1):
        factor = change.factors.gather(1, column[:, None])[:, 0]
        weight = _per_image(factor, planes.device)
        grey_weight = _per_image((1 - factor) * (column == SATURATION), planes.device)
        mean_weight = _per_image((1 - factor) * (column == CONTRAST), planes.device)
        grey = _luma(planes)
        # Whole levels, as in torchvision: a sum of integers is the same in any order, one of floats is not.
        mean = grey.to(torch.int32).sum(dim=(2, 3), keepdim=True) / pixels
        planes.mul_(weight).add_(grey.mul_(grey_weight).add_(mean * mean_weight)).clamp_(0, 255)


def _blur(planes: Tensor, sigma: Tensor) -> None:
    """Blur float32 [B, 3, H, W] in place down the height over five rows, edges reflected, each with its own `sigma`.

    The release's kernel_size (1, 5) is (across, down) in torchvision: rows are mixed, columns are not.
    """
    # In float64, so that the weights are the same, once rounded, whichever vector instructions made them.
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
    """Grey of float32 [B, 3, H, W], [B, 1, H, W]."""
    grey: Tensor = rgb_to_grayscale(planes)
    return grey


def _per_image(values: Tensor, device: torch.device) -> Tensor:
    """[B] on the CPU as [B, 1, 1, 1] on `device`."""
    return values.to(device)[:, None, None, None]
