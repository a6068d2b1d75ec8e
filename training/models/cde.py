"""CDE, "Coming Down to Earth": what a generator of street views makes of a tile is its descriptor.

Source: Toker et al., "Coming Down to Earth: Satellite-to-Street View Synthesis for Geo-Localization", CVPR 2021, and
its release. The defaults are the release's. This is the half that retrieves: the generator's encoder for tiles, a
ResNet-34 for panoramas, and spatial attention for each. The decoder and the discriminator, which training needs to draw
street views, are in `cde_synthesis`; files and losses are out of scope. Works on normalised images.
"""

from itertools import pairwise
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.base import Count, Depth, ModelSettings
from geodtr.training.models.geodtr.geodtr import Backbone, BackboneConfig
from geodtr.training.models.geodtr.layout import LayoutBranch, LayoutModel
from geodtr.training.models.safa import PositionEmbedding

_STAGES = 3
_SMALLEST = 2 << _STAGES  # a side of two positions, of which one is reflected


class CdeConfig(ModelSettings, frozen=True, kw_only=True, tag="cde"):
    """`descriptors` is the number of attention maps. `begin`, `encoder` and `residuals` are the generator's; `widths`
    and `blocks` the first three stages of the ResNet, whose last width is the encoder's.
    """

    descriptors: Count = 8
    begin: Count = 32
    encoder: tuple[Count, Count, Count] = (64, 128, 256)
    residuals: Depth = 6
    widths: tuple[Count, Count, Count] = (64, 128, 256)
    blocks: tuple[Depth, Depth, Depth] = (3, 4, 6)


class SpectralConv(nn.Conv2d):
    """A convolution, with reflected edges by default, its kernel divided by its largest singular value.

    That is u^T W v, of the vectors of a power iteration. Training makes one step of it for each value of the weights,
    not for each call: a step's second pass through the same images, as for gradient caching, gives the same. `renew`
    asks for another step with the same weights.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        width_in: int,
        width: int,
        size: int,
        *,
        stride: int = 1,
        padding_mode: Literal["reflect", "zeros"] = "reflect",
        bias: bool = True,
    ) -> None:
        super().__init__(
            width_in,
            width,
            size,
            stride=stride,
            padding=(size - 1) // 2,
            padding_mode=padding_mode if size > 1 else "zeros",
            bias=bias,
        )
        nn.init.normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.register_buffer("u", F.normalize(nn.init.normal_(torch.empty(width)), dim=0))
        self.register_buffer("v", F.normalize(self.weight.detach().flatten(1).T @ self.u, dim=0))
        self._iterated: int | None = None

    def forward(self, features: Tensor) -> Tensor:
        if self.training and self.weight._version != self._iterated:
            self._iterate()
        convolved: Tensor = self._conv_forward(features, self._divided(), self.bias)
        return convolved

    def renew(self) -> None:
        """Make a step of the power iteration at the next call in training, whether or not the weights have changed."""
        self._iterated = None

    def folded(self) -> nn.Conv2d:
        """A plain convolution that gives the same."""
        size = self.kernel_size[0]
        plain = nn.Conv2d(self.in_channels, self.out_channels, size, padding=size // 2, padding_mode=self.padding_mode)
        plain.weight, plain.bias = nn.Parameter(self._divided().detach()), self.bias
        return plain

    def _divided(self) -> Tensor:
        # Sums, where autocast would multiply matrices in half precision.
        return self.weight / (self.u[:, None] * self.weight.flatten(1) * self.v).sum()

    @torch.no_grad()
    def _iterate(self) -> None:
        matrix = self.weight.flatten(1)
        self.v.copy_(F.normalize((matrix * self.u[:, None]).sum(dim=0), dim=0))
        self.u.copy_(F.normalize((matrix * self.v).sum(dim=1), dim=0))
        self._iterated = self.weight._version


class AveragedConv(SpectralConv):
    """A convolution, then the means of 2x2 of its outputs: [B, C, H, W] -> [B, C', H/2, W/2], sides rounded down."""

    def forward(self, features: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(features), 2)

    def folded(self) -> nn.Conv2d:
        """A plain convolution of stride 2 that gives the same: its kernel is the mean of four shifted ones.

        It computes less, and OpenVINO rounds the means of 8-bit outputs to integers.
        """
        plain = super().folded()
        shifted = F.avg_pool2d(F.pad(plain.weight, (1, 1, 1, 1)), 2, stride=1)
        averaged = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size[0] + 1,
            stride=2,
            padding=plain.padding[0],
            padding_mode=plain.padding_mode,
        )
        averaged.weight, averaged.bias = nn.Parameter(shifted.detach()), plain.bias
        return averaged


def instance_norm(width: int) -> nn.GroupNorm:
    """Of each channel alone, with the statistics of the image itself, in evaluation too."""
    return nn.GroupNorm(width, width, eps=1e-5)


class Down(nn.Module):
    """Features [B, C, H, W] -> [B, C', H/2, W/2], sides rounded down, normalised."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first = SpectralConv(width_in, width, 3)
        self.second = AveragedConv(width, width, 3)
        self.shortcut = AveragedConv(width_in, width, 1)
        self.norm = instance_norm(width)

    def forward(self, features: Tensor) -> Tensor:
        deep = self.second(F.relu(self.first(F.relu(features))))
        normed: Tensor = self.norm(deep + self.shortcut(features))
        return normed


class Residual(nn.Module):
    """Two normalised convolutions, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = SpectralConv(width, width, 3), instance_norm(width)
        self.conv2, self.norm2 = SpectralConv(width, width, 3), instance_norm(width)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = features + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(features)))))
        return added


class Encoder(nn.Module):
    """The generator up to its bottleneck: polar tiles [B, 3, H, W] -> [B, C, H/8, W/8], sides rounded down."""

    def __init__(self, config: CdeConfig) -> None:
        super().__init__()
        self.begin, self.begin_norm = SpectralConv(3, config.begin, 7), instance_norm(config.begin)
        widths = (config.begin, *config.encoder)
        self.downs = nn.Sequential(*(Down(*pair) for pair in pairwise(widths)))
        self.residuals = nn.Sequential(*(Residual(widths[-1]) for _ in range(config.residuals)))

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs of all down blocks, then the bottleneck: what a street view is drawn from."""
        features = [self.begin_norm(self.begin(images))]
        for down in self.downs:
            features.append(down(features[-1]))
        return (*features[1:], self.residuals(features[-1]))


class Attention(PositionEmbedding):
    """SAFA's position embedding without bounds: features [B, C, N] -> weights of the positions [B, N, K]."""

    def forward(self, features: Tensor) -> Tensor:
        return self.unbounded(features)


class Cde(LayoutModel):
    """Two branches of two forms, without shared weights."""

    def __init__(self, config: CdeConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        if not aerial.polar:
            raise ConfigError(
                'The model "cde" describes a tile by what becomes a panoramic street view, and needs it '
                "polar-transformed. Set aerial.polar=true, with a size like the ground images'."
            )
        if min(aerial.height, aerial.width) < _SMALLEST:
            raise ConfigError(
                f'Tiles of {aerial.height}x{aerial.width} pixels are too small for the model "cde", which reflects its '
                f"features' edges: set aerial.height and aerial.width to {_SMALLEST} or more."
            )
        if config.widths[-1] != config.encoder[-1]:
            raise ConfigError(
                f"model.widths end in {config.widths[-1]} channels and model.encoder in {config.encoder[-1]}, but both "
                "branches must have as many. Make them equal."
            )

        def make(how: Preprocessing) -> LayoutBranch:
            backbone = Encoder(config) if how.polar else trunk(config)
            return LayoutBranch(backbone, Attention(config.descriptors, positions(how)))

        super().__init__(make, config.widths[-1] * config.descriptors, ground, aerial)
        self.config = config

    @property
    def trunks(self) -> list[nn.Module]:
        # Not the encoder: whether a kernel has changed is nothing that a compiled graph could ask.
        return [self.ground.backbone]


def trunk(config: CdeConfig) -> Backbone:
    """ResNet-34 without max-pool, cut behind its third stage: [B, 3, H, W] -> [B, C, H/8, W/8], sides rounded up."""
    whole = Backbone(BackboneConfig(widths=(*config.widths, 1), blocks=(*config.blocks, 1)))
    whole.layers = whole.layers[:-1]
    return whole


def positions(preprocessing: Preprocessing) -> int:
    """Number of feature positions N for this input size."""
    height, width = preprocessing.height, preprocessing.width
    for _ in range(_STAGES):
        height, width = (height // 2, width // 2) if preprocessing.polar else (ceil(height / 2), ceil(width / 2))
    return height * width
