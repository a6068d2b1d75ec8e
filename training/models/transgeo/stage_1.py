"""TransGeo: a vision transformer per view, without polar transform. Stage 1, which sees the whole image.

Stage 2 is in stage_2.py.

Source: Zhu et al., "TransGeo: Transformer Is All You Need for Cross-view Image Geo-localization", CVPR 2022, and its
release. The defaults are the release's DeiT-S, distilled. Works on normalised images; files, losses and training are
out of scope.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones.vit import EPSILON, Layer, Tokens, initialise
from geodtr.training.models.base import Count, Depth, ModelSettings, TwoNetworks

LEARNED = 2
"""The class token and the distillation token, in this order before the patches."""


class TransGeoConfig(ModelSettings, frozen=True, kw_only=True, tag="transgeo"):
    """`patch`: side of the square that becomes a token, in pixels; an incomplete one at the edge is not seen."""

    patch: Count = 16
    width: Count = 384
    layers: Depth = 12
    heads: Count = 6
    feed_forward: Count = 1536
    descriptor_size: Count = 1000


class TransGeoBranch(nn.Module):
    """One view: normalised images [B, 3, H, W] -> unit descriptors [B, D]."""

    def __init__(self, config: TransGeoConfig, how: Preprocessing) -> None:
        super().__init__()
        patches = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)
        self.tokens = Tokens(patches, LEARNED, positions(config.patch, how))
        self.layers = nn.Sequential(
            *(Layer(config.width, config.heads, config.feed_forward) for _ in range(config.layers))
        )
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.head = nn.Linear(config.width, config.descriptor_size)
        self.distillation_head = nn.Linear(config.width, config.descriptor_size)
        for head in (self.head, self.distillation_head):
            initialise(head)

    def seen(self, images: Tensor) -> Tensor:
        """The tokens that the layers read: all of the image."""
        tokens: Tensor = self.tokens(images)
        return tokens

    def raw(self, images: Tensor) -> Tensor:
        """The release's output: [B, D], not of unit length."""
        learned = self.norm(self.layers(self.seen(images))[:, :LEARNED])
        # Rows of one token each keep the products of matrices, as all others are, which the exporter writes alike.
        both = self.head(learned[:, :1]) + self.distillation_head(learned[:, 1:])
        descriptors: Tensor = both.squeeze(1) / 2
        return descriptors

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.raw(images), dim=1)


class TransGeo(TwoNetworks[TransGeoBranch]):
    """Two branches without shared weights."""

    def __init__(self, config: TransGeoConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__(lambda how: TransGeoBranch(config, how), config.descriptor_size, ground, aerial)
        self.config = config


def positions(patch: int, preprocessing: Preprocessing) -> int:
    """Number of patches for this input size. Raises ConfigError when there is none."""
    rows, columns = grid(patch, preprocessing.height, preprocessing.width)
    return rows * columns


def grid(patch: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches in an image. Raises ConfigError when there are none."""
    if not (height // patch and width // patch):
        raise ConfigError(
            f"An input of {height}x{width} holds no patch of {patch}x{patch} pixels. Use larger images, or a smaller "
            "model.patch."
        )
    return height // patch, width // patch
