"""Photometric augmentation as Sample4Geo's release does it: JPEG, colours, blur or sharpening, and dropped rectangles.

Source: Deuser et al., ICCV 2023, and its release, which calls Albumentations; what the release leaves to that library
(the blur's kernel, the grid) follows its documentation. Each image is changed alone, by its own draws, so that row i of
the result depends only on row i. One difference: JPEG comes after the resize, since images are kept at the network's
size.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from geodtr.runtime.names import Branch

_JPEG = _JITTER = 0.5
_DETAIL = _DROPOUT = 0.3
"""Probabilities."""
_QUALITY = (90, 100)
_STRENGTH = 0.15
"""Factors of brightness, contrast and saturation are 1 +- this; the hue moves by as much of a full turn."""
_RATIO: Mapping[Branch, float] = {"ground": 0.5, "aerial": 0.4}
_CELLS = 10
"""Across the image, in the grid of dropped rectangles."""
_HOLES = (10, 25)
_HOLE = (0.1, 0.2)
"""Sides of a hole, in image heights."""


@dataclass(frozen=True, slots=True)
class Sample4GeoChange:
    """One change per image of `branch`, drawn from the image's own of `seeds`, int64 [B] on the CPU."""

    seeds: Tensor
    branch: Branch

    def rows(self, rows: slice) -> "Sample4GeoChange":
        """The changes of some images of the batch, for example of one rank."""
        return Sample4GeoChange(self.seeds[rows], self.branch)

    def apply(self, images: Tensor) -> Tensor:
        """Images uint8 [B, H, W, 3], changed."""
        return torch.stack(
            [
                _changed(image.permute(2, 0, 1), _Draws(seed), _RATIO[self.branch]).permute(1, 2, 0)
                for image, seed in zip(images, self.seeds.tolist(), strict=True)
            ]
        )


def draw_sample4geo(branch: Branch, images: int, generator: torch.Generator) -> Sample4GeoChange:
    """Draw a change for each of `images` images of one view from a CPU `generator`."""
    return Sample4GeoChange(torch.randint(1 << 62, (images,), generator=generator), branch)


class _Draws:
    """The random numbers of one image."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def happens(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator, dtype=torch.float64).item()

    def integer(self, low: int, high: int) -> int:
        """From `low` to `high`, both possible."""
        return int(torch.randint(low, max(low, high) + 1, (), generator=self.generator))


def _changed(image: Tensor, draws: _Draws, ratio: float) -> Tensor:
    """One image uint8 [3, H, W]."""
    if draws.happens(_JPEG):
        image = _compressed(image, draws.integer(*_QUALITY))
    if draws.happens(_JITTER):
        image = _jittered(image, draws)
    if draws.happens(_DETAIL):
        image = _filtered(image, _blur(draws) if draws.happens(0.5) else _sharpening(draws))
    if draws.happens(_DROPOUT):
        grid = draws.happens(0.5)
        image = image * (_grid(image, ratio) if grid else _holes(image, draws)).to(image.device)
    return image


def _compressed(image: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).to(image.device)


def _jittered(image: Tensor, draws: _Draws) -> Tensor:
    """Brightness, contrast, saturation and hue, in a random order."""
    from torchvision.transforms.v2 import functional as v2

    adjust = (v2.adjust_brightness, v2.adjust_contrast, v2.adjust_saturation, v2.adjust_hue)
    amounts = [draws.uniform(1 - _STRENGTH, 1 + _STRENGTH) for _ in range(3)] + [draws.uniform(-_STRENGTH, _STRENGTH)]
    for number in torch.randperm(len(adjust), generator=draws.generator).tolist():
        image = adjust[number](image, amounts[number])
    return image


def _filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """The image, edges reflected, under a kernel [k, k]."""
    margin = kernel.shape[0] // 2
    planes = F.pad(image.float()[:, None], (margin,) * 4, mode="reflect")
    filtered = F.conv2d(planes, kernel.to(image.device, torch.float32)[None, None])[:, 0]
    return filtered.round_().clamp_(0, 255).to(torch.uint8)


def _blur(draws: _Draws) -> Tensor:
    """A generalised Gaussian of two widths, rotated, its shape between a peak and a box, times noise."""
    radius = draws.integer(1, 3)
    widths = torch.tensor([draws.uniform(0.2, 1.0), draws.uniform(0.2, 1.0)], dtype=torch.float64)
    angle = torch.tensor(draws.uniform(-torch.pi / 2, torch.pi / 2), dtype=torch.float64)
    shape = draws.uniform(0.5, 1.0) if draws.happens(0.5) else draws.uniform(1.0, 8.0)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    along = (x * angle.cos() + y * angle.sin()) / widths[0]
    across = (y * angle.cos() - x * angle.sin()) / widths[1]
    kernel = torch.exp(-0.5 * (along**2 + across**2) ** shape)
    kernel *= 0.9 + 0.2 * torch.rand(kernel.shape, generator=draws.generator, dtype=torch.float64)
    return kernel / kernel.sum()


def _sharpening(draws: _Draws) -> Tensor:
    """The image, blended with its edges."""
    share, lightness = draws.uniform(0.2, 0.5), draws.uniform(0.5, 1.0)
    kernel = torch.full((3, 3), -share)
    kernel[1, 1] = 1 - share + share * (8 + lightness)
    return kernel


def _grid(image: Tensor, ratio: float) -> Tensor:
    """bool [H, W], false in the upper left of each cell of a grid."""
    height, width = image.shape[1:]
    cell = max(2, width // _CELLS)

    def dropped(length: int, side: int) -> Tensor:
        return torch.arange(length) % side < min(max(1, int(side * ratio)), side - 1)

    return ~(dropped(height, max(2, min(cell, height)))[:, None] & dropped(width, cell))


def _holes(image: Tensor, draws: _Draws) -> Tensor:
    """bool [H, W], false in rectangles anywhere."""
    height, width = image.shape[1:]
    kept = torch.ones(height, width, dtype=torch.bool)
    least, most = (max(1, int(share * height)) for share in _HOLE)
    for _ in range(draws.integer(*_HOLES)):
        rows, columns = draws.integer(least, most), draws.integer(least, most)
        top, left = draws.integer(0, height - rows), draws.integer(0, max(0, width - columns))
        kept[top : top + rows, left : left + columns] = False
    return kept
