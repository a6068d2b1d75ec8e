"""What GeoDTR, GeoDTR+ and SAFA share: descriptors are a backbone's features, summed with learned layout weights.

Two branches without shared weights. A model gives the backbone and the module that makes weights of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Branch
from geodtr.training.models.base import TwoNetworks, Uniform, check_heads


@dataclass(frozen=True, slots=True)
class Explanation:
    """Maps over the feature grid of h x w positions that explain a descriptor.

    `saliency` [B, h, w], at least 0: the strongest channel at each position. `layouts` [B, K, h, w] in [-1, 1]: the
    weight that each layout descriptor gives to each position.
    """

    saliency: Tensor
    layouts: Tensor


class LayoutBranch(nn.Module):
    """One view: normalised images [B, 3, H, W] -> unit descriptors [B, C*K], index = channel*K + k.

    `backbone`: images -> features [B, C, h, w]. `layout`: features [B, C, N] -> weights of the positions P [B, N, K].
    """

    def __init__(self, backbone: nn.Module, layout: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        return self.describe(self.backbone(images).flatten(2))

    def describe(self, features: Tensor) -> Tensor:
        """Features [B, C, N] -> unit descriptors [B, C*K]."""
        return _describe(features, self.layout(features))

    def with_counterfactual(self, images: Tensor, uniform: Uniform) -> tuple[Tensor, Tensor]:
        """Descriptors, and counterfactual descriptors from a random layout (GeoDTR, section 3.4).

        The layout is always computed in float32: it is a hundredth of the arithmetic, and its channel indices and
        normalisations need the precision.
        """
        features = self.backbone(images).flatten(2)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            layout = self.layout(features)
            imagined = self.imagine(uniform, layout.shape[1:])
            return _describe(features, layout), _describe(features, imagined)

    def imagine(self, uniform: Uniform, shape: Sequence[int]) -> Tensor:
        """A random layout [B, N, K] of this `shape` [N, K]: U(-1, 1)."""
        return uniform(shape) * 2 - 1

    def explain(self, images: Tensor) -> Explanation:
        """Saliency and the K layout descriptors as maps over the feature grid."""
        grid = self.backbone(images)
        layouts = self.layout(grid.flatten(2)).transpose(1, 2)
        return Explanation(grid.amax(dim=1), layouts.unflatten(2, grid.shape[2:]))


def _describe(features: Tensor, layout: Tensor) -> Tensor:
    return F.normalize((features @ layout).flatten(1), dim=1)


class LayoutModel(TwoNetworks[LayoutBranch]):
    """Two branches without shared weights."""

    def training_outputs(self, branch: Branch, images: Tensor, uniform: Uniform) -> tuple[Tensor, ...]:
        return self.branch(branch).with_counterfactual(images, uniform)

    @property
    def trunks(self) -> list[nn.Module]:
        return [self.ground.backbone, self.aerial.backbone]


def half_of(positions: int) -> int:
    """Inner width of a bottleneck over the feature positions. Raises ConfigError when it would be 0."""
    if positions < 2:
        raise ConfigError(
            f"The input gives {positions} feature position{'' if positions == 1 else 's'}; the layout needs at least "
            "two. Use larger images."
        )
    return positions // 2


def transformer(width: int, of: str, heads: int, feed_forward: int, dropout: float, layers: int) -> nn.Module:
    """A transformer encoder with a norm behind it. Raises ConfigError when `heads` do not divide the width of `of`."""
    check_heads(width, of, heads)
    layer = nn.TransformerEncoderLayer(width, heads, feed_forward, dropout, activation="gelu", batch_first=True)
    # The nested-tensor fast path rounds differently and cannot be exported.
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
