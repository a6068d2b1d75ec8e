"""SAFA: VGG-16 with spatial-aware position embeddings, one branch per view, without shared weights.

Source: Shi et al., "Spatial-Aware Feature Aggregation for Cross-View Image Based Geo-Localization", NeurIPS 2019, in
the PyTorch form of GeoDTR's group, which reduces by the maximum and bounds the embeddings by tanh. The defaults are
that form's. Works on normalised images; files, losses and training are out of scope.
"""

from typing import Annotated

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import BranchSpec, Preprocessing
from geodtr.training.models.base import CrossViewModel, Uniform
from geodtr.training.models.explanation import Explanation
from geodtr.training.models.geodtr import Count, Depth

_POOLS = 4


class SafaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name", tag="safa"):
    """`descriptors` is the number of position embeddings. Widths and convolutions by stage are VGG-16's.

    `dropout` follows the convolutions of the last two stages.
    """

    descriptors: Count = 8
    widths: tuple[Count, Count, Count, Count, Count] = (64, 128, 256, 512, 512)
    convolutions: tuple[Depth, Depth, Depth, Depth, Depth] = (2, 2, 3, 3, 3)
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2


def vgg(config: SafaConfig) -> nn.Sequential:
    """[B, 3, H, W] -> [B, C, H/16, W/16], sides rounded down: VGG without its last pooling and classifier."""
    layers: list[nn.Module] = []
    width_in = 3
    for stage, (width, count) in enumerate(zip(config.widths, config.convolutions, strict=True)):
        if stage:
            layers.append(nn.MaxPool2d(2))
        for _ in range(count):
            convolution = nn.Conv2d(width_in, width, kernel_size=3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, *([nn.Dropout(config.dropout)] if stage >= 3 else []), nn.ReLU(inplace=True)]
            width_in = width
    return nn.Sequential(*layers)


class PositionEmbedding(nn.Module):
    """Features [B, C, N] -> weights of the positions P [B, N, K] in [-1, 1]."""

    def __init__(self, descriptors: int, positions: int) -> None:
        super().__init__()
        inner = positions // 2
        if inner < 1:
            raise ConfigError(
                f"The input gives {positions} feature positions; the position embedding needs at least two. Use larger "
                "images."
            )
        self.w1 = nn.Parameter(torch.empty(positions, inner, descriptors))
        self.b1 = nn.Parameter(torch.full((1, inner, descriptors), 0.1))
        self.w2 = nn.Parameter(torch.empty(inner, positions, descriptors))
        self.b2 = nn.Parameter(torch.full((1, positions, descriptors), 0.1))
        for weight in (self.w1, self.w2):
            nn.init.normal_(weight, std=0.005)

    def forward(self, features: Tensor) -> Tensor:
        inner = torch.einsum("bi,ijk->bjk", features.amax(dim=1), self.w1) + self.b1
        return torch.tanh(torch.einsum("bjk,jik->bik", inner, self.w2) + self.b2)


class SafaBranch(nn.Module):
    """One view: normalised images [B, 3, H, W] -> unit descriptors [B, C*K], index = channel*K + k."""

    def __init__(self, config: SafaConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.backbone = vgg(config)
        self.layout = PositionEmbedding(config.descriptors, positions(preprocessing))

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images).flatten(2)
        return _describe(features, self.layout(features))

    def with_counterfactual(self, images: Tensor, uniform: Uniform) -> tuple[Tensor, Tensor]:
        """Descriptors, and counterfactual descriptors from random weights U(-1, 1). The embedding is in float32."""
        features = self.backbone(images).flatten(2)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            layout = self.layout(features)
            imagined = uniform(layout.shape[1:]) * 2 - 1
            return _describe(features, layout), _describe(features, imagined)

    def explain(self, images: Tensor) -> Explanation:
        """Saliency and the K position embeddings as maps over the feature grid."""
        grid = self.backbone(images)
        layouts = self.layout(grid.flatten(2)).transpose(1, 2)
        return Explanation(grid.amax(dim=1), layouts.unflatten(2, grid.shape[2:]))


def _describe(features: Tensor, layout: Tensor) -> Tensor:
    return F.normalize((features @ layout).flatten(1), dim=1)


class Safa(CrossViewModel):
    """Two branches without shared weights."""

    def __init__(self, config: SafaConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__()
        self.config = config
        self.ground = SafaBranch(config, ground)
        self.aerial = SafaBranch(config, aerial)
        size = config.widths[-1] * config.descriptors
        self.specs = {
            "ground": BranchSpec(branch="ground", preprocessing=ground, descriptor_size=size),
            "aerial": BranchSpec(branch="aerial", preprocessing=aerial, descriptor_size=size),
        }

    def branch(self, branch: Branch) -> SafaBranch:
        return self.ground if branch == "ground" else self.aerial

    def training_outputs(self, branch: Branch, images: Tensor, uniform: Uniform) -> tuple[Tensor, ...]:
        return self.branch(branch).with_counterfactual(images, uniform)

    @property
    def trunks(self) -> list[nn.Module]:
        return [self.ground.backbone, self.aerial.backbone]


def positions(preprocessing: Preprocessing) -> int:
    """Number of feature positions N for this input size."""
    return (preprocessing.height >> _POOLS) * (preprocessing.width >> _POOLS)
