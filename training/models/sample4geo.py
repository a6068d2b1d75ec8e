"""Sample4Geo: one ConvNeXt encoder for both views, average pooling, no polar transform.

Source: Deuser et al., "Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation", ICCV 2023, and its release.
The defaults are the release's ConvNeXt-B. Works on normalised images; files, losses and training are out of scope.
"""

from math import log
from typing import Annotated

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones import convnext
from geodtr.training.models.base import Count, CrossViewModel, Depth, ModelSettings, specs_of

_STAGES = msgspec.Meta(min_length=1, max_length=8)


class Sample4GeoConfig(ModelSettings, frozen=True, kw_only=True, tag="sample4geo"):
    """Stages of the encoder. `layer_scale` and `temperature` are the initial ones; both are trained."""

    widths: Annotated[tuple[Count, ...], _STAGES] = (128, 256, 512, 1024)
    blocks: Annotated[tuple[Depth, ...], _STAGES] = (3, 3, 27, 3)
    layer_scale: convnext.LayerScale = 1e-6
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 0.07


class Encoder(nn.Module):
    """Normalised images [B, 3, H, W] of any size -> unit descriptors [B, C]."""

    def __init__(self, config: Sample4GeoConfig) -> None:
        super().__init__()
        self.features = convnext.convnext(config.widths, config.blocks, config.layer_scale)
        self.norm = nn.LayerNorm(config.widths[-1], eps=1e-6)

    def raw(self, images: Tensor) -> Tensor:
        """The release's output: [B, C], not of unit length."""
        pooled: Tensor = self.norm(self.features(images).mean(dim=(2, 3)))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.raw(images), dim=1)


class Sample4Geo(CrossViewModel):
    """Both views by one encoder. `logit_scale` is the logarithm of the loss's inverse temperature."""

    def __init__(self, config: Sample4GeoConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__()
        self.config = config
        for how in (ground, aerial):
            convnext.grid(len(config.widths), how)
        self.encoder = Encoder(config)
        self.logit_scale = nn.Parameter(torch.tensor(-log(config.temperature)))
        self.specs = specs_of(ground, aerial, config.widths[-1])

    def branch(self, branch: Branch) -> Encoder:
        del branch  # one for both
        return self.encoder

    @property
    def trunks(self) -> list[nn.Module]:
        return [self.encoder]
