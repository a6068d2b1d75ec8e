"""L2LTR: a residual network, and a transformer over its positions whose keys come from the layer before.

Source: Yang et al., "Cross-view Geo-localization with Layer-to-Layer Transformer", NeurIPS 2021, and its release. The
defaults are the release's R50+ViT-B. Works on normalised images; files, losses and training are out of scope.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones.vit import EPSILON, Layer, Tokens
from geodtr.training.models.base import Count, Depth, ModelSettings, Share, TwoNetworks

_STRIDE, _EXPANSION = 16, 4


class L2LTRConfig(ModelSettings, frozen=True, kw_only=True, tag="l2ltr"):
    """`stem`, `widths`, `units` and `groups` (of its norms) are the residual network's, the rest is the transformer's.

    `dropout` follows the tokens, and both products of each feed-forward network.
    """

    stem: Count = 64
    widths: tuple[Count, Count, Count] = (256, 512, 1024)
    units: tuple[Depth, Depth, Depth] = (3, 4, 9)
    groups: Count = 32
    width: Count = 768
    layers: Depth = 12
    heads: Count = 12
    feed_forward: Count = 3072
    dropout: Share = 0.1


class StandardisedConvolution(nn.Conv2d):
    """A convolution without bias whose kernels have mean 0 and variance 1 in each output channel.

    Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.
    """

    def __init__(self, width_in: int, width_out: int, size: int, stride: int = 1) -> None:
        super().__init__(width_in, width_out, size, stride, padding=size // 2, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self._conv_forward(features, self._standardised(), None)
        return convolved

    def folded(self) -> nn.Conv2d:
        """A plain convolution that gives the same."""
        plain = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size[0],
            self.stride[0],
            padding=self.kernel_size[0] // 2,
            bias=False,
        )
        plain.weight = nn.Parameter(self._standardised().detach())
        return plain

    def _standardised(self) -> Tensor:
        kernels = self.weight.flatten(1)
        centred = kernels - kernels.mean(dim=1, keepdim=True)
        deviation = (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return (centred / deviation).view(self.weight.shape)


def _norm(groups: int, width: int) -> nn.GroupNorm:
    if width % groups:
        raise ConfigError(
            f"model.groups {groups} does not divide {width}, a width of the residual network: model.stem, or a quarter "
            "of one of model.widths."
        )
    return nn.GroupNorm(groups, width, eps=EPSILON)


class Unit(nn.Module):
    """[B, C_in, H, W] -> [B, C_out, H/stride, W/stride]: three convolutions beside a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int, groups: int) -> None:
        super().__init__()
        inner = max(1, width // _EXPANSION)
        self.conv1, self.norm1 = StandardisedConvolution(width_in, inner, 1), _norm(groups, inner)
        self.conv2, self.norm2 = StandardisedConvolution(inner, inner, 3, stride), _norm(groups, inner)
        self.conv3, self.norm3 = StandardisedConvolution(inner, width, 1), _norm(groups, width)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(features)))
        inner = F.relu(self.norm2(self.conv2(inner)))
        return F.relu(self.shortcut(features) + self.norm3(self.conv3(inner)))

    def shortcut(self, features: Tensor) -> Tensor:
        return features


class FirstUnit(Unit):
    """The unit that changes the width: its shortcut has a convolution, and a norm over each channel by itself."""

    def __init__(self, width_in: int, width: int, stride: int, groups: int) -> None:
        super().__init__(width_in, width, stride, groups)
        self.projection = StandardisedConvolution(width_in, width, 1, stride)
        self.projection_norm = nn.GroupNorm(width, width)  # with an epsilon of 1e-5, unlike the others

    def shortcut(self, features: Tensor) -> Tensor:
        projected: Tensor = self.projection_norm(self.projection(features))
        return projected


class ResidualNetwork(nn.Module):
    """[B, 3, H, W] -> [B, C, ceil(H/16), ceil(W/16)]."""

    def __init__(self, config: L2LTRConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            StandardisedConvolution(3, config.stem, 7, stride=2),
            _norm(config.groups, config.stem),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages, width_in = [], config.stem
        for index, (width, units) in enumerate(zip(config.widths, config.units, strict=True)):
            first = FirstUnit(width_in, width, stride=2 if index else 1, groups=config.groups)
            others = (Unit(width, width, stride=1, groups=config.groups) for _ in range(units - 1))
            stages.append(nn.Sequential(first, *others))
            width_in = width
        self.stages = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(images))
        return features


class CrossLayer(Layer):
    """A layer whose keys are made of other tokens than its queries and values."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__(width, heads, feed_forward, dropout)
        self.keys_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, tokens: Tensor, keys_from: Tensor) -> Tensor:  # type: ignore[override] # the other tokens
        return self.feed(tokens + self.attention(self.attention_norm(tokens), self.keys_norm(keys_from)))


class L2LTRBranch(nn.Module):
    """One view: normalised images [B, 3, H, W] -> unit descriptors [B, width]."""

    def __init__(self, config: L2LTRConfig, how: Preprocessing) -> None:
        super().__init__()
        self.backbone = ResidualNetwork(config)
        self.tokens = Tokens(nn.Conv2d(config.widths[-1], config.width, kernel_size=1), 1, positions(how))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            CrossLayer(config.width, config.heads, config.feed_forward, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        before = tokens = self.dropout(self.tokens(self.backbone(images)))
        for layer in self.layers:
            # Keys are one layer behind: of what the layer before has read, not of what it gave.
            before, tokens = tokens, layer(tokens, before)
        return F.normalize(self.norm(tokens[:, 0]), dim=1)


class L2LTR(TwoNetworks[L2LTRBranch]):
    """Two branches without shared weights."""

    def __init__(self, config: L2LTRConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__(lambda how: L2LTRBranch(config, how), config.width, ground, aerial)
        self.config = config


def positions(preprocessing: Preprocessing) -> int:
    """Number of feature positions for this input size. Raises ConfigError for a single one, which no norm takes."""
    number = -(-preprocessing.height // _STRIDE) * -(-preprocessing.width // _STRIDE)
    if number < 2:
        raise ConfigError(
            f"An input of {preprocessing.height}x{preprocessing.width} gives one feature position; L2LTR needs at "
            f"least two, of {_STRIDE} pixels each. Use larger images."
        )
    return number
