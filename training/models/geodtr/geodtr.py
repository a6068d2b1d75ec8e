"""GeoDTR: geometric layout descriptors over a residual backbone, one branch per view, without shared weights.

Source: Zhang et al., "Cross-view Geo-localization via Learning Disentangled Geometric Layout Correspondence",
AAAI 2023, sections 3.2 to 3.4. The defaults are the sizes of the official release. Works on normalised images; files,
losses and training are out of scope.
"""

from math import ceil
from typing import Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.base import Count, Depth, Layers, ModelSettings, Share
from geodtr.training.models.geodtr.layout import LayoutBranch, LayoutModel, half_of, transformer

Counts = tuple[Count, Count, Count, Count]
Depths = tuple[Depth, Depth, Depth, Depth]


class BackboneConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stages of a residual network; the defaults are ResNet-34 without max-pool (stride 2 in the stem, 16 in all)."""

    widths: Counts = (64, 128, 256, 512)
    blocks: Depths = (3, 4, 6, 3)
    strides: Counts = (1, 2, 2, 2)


RESNET34 = BackboneConfig()


class GeoDTRConfig(ModelSettings, frozen=True, kw_only=True, tag="geodtr"):
    """`descriptors` is the paper's K; the other numbers configure the layout extractor's transformer.

    `layers` may be 0: neither transformer nor index-aware code.
    `initialisation` applies to the layout extractor's three large weights. "official", the default, draws them from
    N(0, 0.005), as the release does; "fan-in" has a standard deviation of inputs**-0.5. On the generated world both
    reach the same recall within the spread of seeds (docs/claims.md); "official" allows more INT8 operators.
    """

    backbone: BackboneConfig = RESNET34
    descriptors: Count = 8
    layers: Layers = 2
    heads: Count = 4
    feed_forward: Count = 2048
    dropout: Share = 0.3
    initialisation: Literal["official", "fan-in"] = "official"


class Residual(nn.Module):
    """Two convolutions added to their input or its `downsample`: torchvision's BasicBlock, with its names.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. To import torchvision takes as long as
    to import PyTorch, which every command would wait for.
    """

    def __init__(self, width_in: int, width: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        out += features if self.downsample is None else self.downsample(features)
        added: Tensor = self.relu(out)
        return added


class Backbone(nn.Module):
    """[B, 3, H, W] -> [B, C, ceil(H/s), ceil(W/s)]: residual stages without pooling or classifier."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        stem = config.widths[0]
        stages: list[nn.Module] = []
        width_in = stem
        for width, blocks, stride in zip(config.widths, config.blocks, config.strides, strict=True):
            stages.append(_stage(width_in, width, blocks, stride))
            width_in = width
        self.layers = nn.Sequential(
            nn.Conv2d(3, stem, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            *stages,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features


def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or width_in != width:
        shortcut = nn.Sequential(
            nn.Conv2d(width_in, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    first = Residual(width_in, width, stride, shortcut)
    return nn.Sequential(first, *(Residual(width, width) for _ in range(blocks - 1)))


class LayoutExtractor(nn.Module):
    """Features [B, C, N] -> layout descriptors P [B, N, K] in [-1, 1] (section 3.2).

    The "position" of the index-aware code is the index of the strongest channel, not a location in the image. It has no
    gradient, and rounding can flip it.
    """

    def __init__(self, config: GeoDTRConfig, positions: int) -> None:
        super().__init__()
        k, size = config.descriptors, half_of(positions)

        def drawn(inputs: int, outputs: int) -> nn.Parameter:
            std = 0.005 if config.initialisation == "official" else inputs**-0.5
            return nn.Parameter(torch.empty(inputs, k, outputs).normal_(std=std))

        self.w1 = drawn(positions, size)
        self.b1 = nn.Parameter(torch.full((1, k, size), 0.1))
        self.w2 = drawn(size, positions)
        self.b2 = nn.Parameter(torch.full((1, k, positions), 0.1))
        self.encoder: nn.Module | None = None
        if config.layers:
            self.code = drawn(positions, size)
            self.code_bias = nn.Parameter(torch.zeros(1, k, size))
            self.dropout = nn.Dropout(config.dropout)
            of = f"the layout extractor's width (half of {positions} positions)"
            self.encoder = transformer(size, of, config.heads, config.feed_forward, config.dropout, config.layers)

    def forward(self, features: Tensor) -> Tensor:
        saliency, channel = features.max(dim=1)
        layout = torch.einsum("bn,nkd->bkd", saliency, self.w1) + self.b1
        if self.encoder is not None:
            position = channel.to(features.dtype) / features.shape[1]
            code = F.hardtanh(torch.einsum("bn,nkd->bkd", position, self.code) + self.code_bias)
            layout = self.encoder(self.dropout(layout + code))
        descriptors = torch.einsum("bkd,dkn->bkn", layout, self.w2) + self.b2
        return F.hardtanh(descriptors.transpose(1, 2))


class GeoDTR(LayoutModel):
    """Two branches without shared weights."""

    def __init__(self, config: GeoDTRConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        def make(how: Preprocessing) -> LayoutBranch:
            return LayoutBranch(Backbone(config.backbone), LayoutExtractor(config, positions(config.backbone, how)))

        super().__init__(make, config.backbone.widths[-1] * config.descriptors, ground, aerial)
        self.config = config


def positions(backbone: BackboneConfig, preprocessing: Preprocessing) -> int:
    """Number of feature positions N for this input size."""
    height, width = preprocessing.height, preprocessing.width
    for stride in (2, *backbone.strides):
        height, width = ceil(height / stride), ceil(width / stride)
    return height * width
