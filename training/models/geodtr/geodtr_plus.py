"""GeoDTR+: GeoDTR with a ConvNeXt backbone and a layout extractor over all feature positions.

Source: Zhang et al., "GeoDTR+: Toward Generic Cross-View Geolocalization via Geometric Disentanglement", TPAMI 2024,
and its release. The defaults are the release's. Works on normalised images; files, losses and training are out of
scope.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones import convnext
from geodtr.training.models.base import Count, Depth, Layers, ModelSettings, Share, Uniform
from geodtr.training.models.geodtr import geodtr
from geodtr.training.models.geodtr.layout import LayoutBranch, LayoutModel, half_of, transformer


class ConvNextConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="convnext"):
    """ConvNeXt-T up to its third stage; stride 16. `layer_scale` is the initial one.

    `stochastic_depth` is the probability at the last block: 0.1 at the last one of all 18 that a whole ConvNeXt-T has.
    """

    widths: tuple[Count, Count, Count] = (96, 192, 384)
    blocks: tuple[Depth, Depth, Depth] = (3, 3, 9)
    layer_scale: convnext.LayerScale = 1e-6
    stochastic_depth: Share = 0.1 * 14 / 17


class ResidualConfig(geodtr.BackboneConfig, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="residual"):
    """GeoDTR's backbone, a ResNet-34 by default."""


Mask = Literal["sigmoid", "normalised", "orthogonal"]


class GeoDTRPlusConfig(ModelSettings, frozen=True, kw_only=True, tag="geodtr-plus"):
    """`descriptors` is the paper's K. `layers` may be 0: no transformer.

    Attributes
    ----------
    bottleneck
        Two linear maps over the positions, for each layout descriptor its own.
    mask
        What makes a layout descriptor of the extractor's output: a sigmoid, unit length over the positions
        (the release's `--normalize`), or orthogonal descriptors of unit length (with `--orthogonalize`).
    """

    backbone: ConvNextConfig | ResidualConfig = ConvNextConfig()
    descriptors: Count = 8
    layers: Layers = 2
    heads: Count = 4
    feed_forward: Count = 512
    dropout: Share = 0.3
    bottleneck: bool = True
    mask: Mask = "sigmoid"


class ConvNextBackbone(nn.Module):
    """[B, 3, H, W] -> [B, C, H/16, W/16], sides rounded down; no norm behind the last stage."""

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        self.net = convnext.convnext(config.widths, config.blocks, config.layer_scale, config.stochastic_depth)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images)
        return features


class LayoutExtractor(nn.Module):
    """Features [B, C, N] -> layout descriptors P [B, N, K]."""

    def __init__(self, config: GeoDTRPlusConfig, channels: int, positions: int) -> None:
        super().__init__()
        k, inner = config.descriptors, half_of(positions)
        if config.mask == "orthogonal" and positions < k:
            raise ConfigError(f"{k} descriptors over {positions} positions cannot be orthogonal. Use larger images.")
        self.mask: Mask = config.mask
        self.encoder: nn.Module | None = None
        if config.layers:
            self.position = nn.Parameter(torch.zeros(1, positions, channels))
            self.dropout = nn.Dropout(config.dropout)
            of = "the backbone's channels"
            self.encoder = transformer(channels, of, config.heads, config.feed_forward, config.dropout, config.layers)
        self.pointwise = nn.Linear(channels, k)
        self.bottleneck = config.bottleneck
        if config.bottleneck:
            self.w1 = nn.Parameter(torch.empty(k, positions, inner))
            self.b1 = nn.Parameter(torch.full((1, k, inner), 0.1))
            self.w2 = nn.Parameter(torch.empty(k, inner, positions))
            self.b2 = nn.Parameter(torch.full((1, k, positions), 0.1))
            for weight in (self.w1, self.w2):
                nn.init.normal_(weight, std=0.005)

    def forward(self, features: Tensor) -> Tensor:
        tokens = features.transpose(1, 2)
        if self.encoder is not None:
            tokens = self.encoder(self.dropout(tokens + self.position))
        layout: Tensor = self.pointwise(tokens)
        if self.bottleneck:
            inner = torch.einsum("bnk,knh->bkh", layout, self.w1) + self.b1
            layout = (torch.einsum("bkh,khn->bkn", inner, self.w2) + self.b2).transpose(1, 2)
        if self.mask == "sigmoid":
            return layout.sigmoid()
        return self.normalise(layout) if self.mask == "normalised" else orthogonal(layout)

    def normalise(self, layout: Tensor) -> Tensor:
        """Unit length over the positions, unless the mask is a sigmoid."""
        return layout if self.mask == "sigmoid" else F.normalize(layout, dim=1)


def orthogonal(columns: Tensor) -> Tensor:
    """The Q of the reduced QR decomposition of each [N, K] of `columns` [B, N, K], N at least K, with LAPACK's signs.

    By Householder reflections, written out because ONNX has no such operator. Source: LAPACK's xGEQRF and xLARFG.
    """
    rest, reflectors = columns, list[Tensor]()
    for k in range(columns.shape[2]):
        column = rest[:, k:, k]
        # The image of the column is -sign(its first element) times its length.
        length = column.norm(dim=1, keepdim=True)
        first = column[:, :1]
        reflector = torch.cat([first + torch.where(first < 0, -length, length), column[:, 1:]], dim=1)
        reflector = F.pad(F.normalize(reflector, dim=1), (k, 0))[:, :, None]
        reflectors.append(reflector)
        rest = rest - 2 * reflector @ (reflector.transpose(1, 2) @ rest)
    basis = torch.eye(*columns.shape[1:], dtype=columns.dtype, device=columns.device)
    for reflector in reversed(reflectors):
        basis = basis - 2 * reflector @ (reflector.transpose(1, 2) @ basis)
    return basis


class GeoDTRPlusBranch(LayoutBranch):
    """A branch whose random layouts are U(0, 1), of unit length where the extractor's are."""

    layout: LayoutExtractor

    def imagine(self, uniform: Uniform, shape: Sequence[int]) -> Tensor:
        return self.layout.normalise(uniform(shape))


class GeoDTRPlus(LayoutModel):
    """Two branches without shared weights."""

    def __init__(self, config: GeoDTRPlusConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        stages = config.backbone

        def make(how: Preprocessing) -> LayoutBranch:
            backbone = ConvNextBackbone(stages) if isinstance(stages, ConvNextConfig) else geodtr.Backbone(stages)
            return GeoDTRPlusBranch(backbone, LayoutExtractor(config, stages.widths[-1], positions(stages, how)))

        super().__init__(make, stages.widths[-1] * config.descriptors, ground, aerial)
        self.config = config


def positions(backbone: ConvNextConfig | ResidualConfig, preprocessing: Preprocessing) -> int:
    """Number of feature positions N for this input size."""
    if not isinstance(backbone, ConvNextConfig):
        return geodtr.positions(backbone, preprocessing)
    height, width = convnext.grid(len(backbone.widths), preprocessing)
    return height * width
