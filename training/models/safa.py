"""SAFA: VGG-16 with spatial-aware position embeddings, one branch per view, without shared weights.

Source: Shi et al., "Spatial-Aware Feature Aggregation for Cross-View Image Based Geo-Localization", NeurIPS 2019, in
the PyTorch form of GeoDTR's group, which reduces by the maximum and bounds the embeddings by tanh. The defaults are
that form's. Works on normalised images; files, losses and training are out of scope.
"""

import torch
from torch import Tensor, nn

from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones.vgg import vgg
from geodtr.training.models.base import Count, Depth, ModelSettings, Share
from geodtr.training.models.geodtr.layout import LayoutBranch, LayoutModel, half_of

_POOLS = 4


class SafaConfig(ModelSettings, frozen=True, kw_only=True, tag="safa"):
    """`descriptors` is the number of position embeddings. Widths and convolutions by stage are VGG-16's.

    `dropout` follows the convolutions of the last two stages.
    """

    descriptors: Count = 8
    widths: tuple[Count, Count, Count, Count, Count] = (64, 128, 256, 512, 512)
    convolutions: tuple[Depth, Depth, Depth, Depth, Depth] = (2, 2, 3, 3, 3)
    dropout: Share = 0.2


class PositionEmbedding(nn.Module):
    """Features [B, C, N] -> weights of the positions P [B, N, K] in [-1, 1]."""

    def __init__(self, descriptors: int, positions: int) -> None:
        super().__init__()
        inner = half_of(positions)
        self.w1 = nn.Parameter(torch.empty(positions, inner, descriptors))
        self.b1 = nn.Parameter(torch.full((1, inner, descriptors), 0.1))
        self.w2 = nn.Parameter(torch.empty(inner, positions, descriptors))
        self.b2 = nn.Parameter(torch.full((1, positions, descriptors), 0.1))
        for weight in (self.w1, self.w2):
            nn.init.normal_(weight, std=0.005)

    def unbounded(self, features: Tensor) -> Tensor:
        # Not another einsum: ONNX Runtime 1.32 would transpose w2 at every call, and leaves w1 as it is.
        inner = torch.einsum("bi,ijk->kbj", features.amax(dim=1), self.w1) + self.b1.permute(2, 0, 1)
        return (inner @ self.w2.permute(2, 0, 1) + self.b2.permute(2, 0, 1)).permute(1, 2, 0)

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.unbounded(features))


class Safa(LayoutModel):
    """Two branches without shared weights."""

    def __init__(self, config: SafaConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        def make(how: Preprocessing) -> LayoutBranch:
            return LayoutBranch(trunk(config), PositionEmbedding(config.descriptors, positions(how)))

        super().__init__(make, config.widths[-1] * config.descriptors, ground, aerial)
        self.config = config


def trunk(config: SafaConfig) -> nn.Sequential:
    """[B, 3, H, W] -> [B, C, H/16, W/16], sides rounded down."""
    return vgg(config.widths, config.convolutions, config.dropout)


def positions(preprocessing: Preprocessing) -> int:
    """Number of feature positions N for this input size."""
    return (preprocessing.height >> _POOLS) * (preprocessing.width >> _POOLS)
