"""ConvNeXt stages without pooling or classifier, built from torchvision's blocks.

Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022. torchvision's network and timm's compute the same.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import msgspec
from torch import nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing

STEM_STRIDE, DOWNSAMPLING = 4, 2
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LayerScale = Annotated[float, msgspec.Meta(gt=0)]


def convnext(
    widths: Sequence[int], blocks: Sequence[int], layer_scale: float = 1e-6, stochastic_depth: float = 0.0
) -> nn.Sequential:
    """[B, 3, H, W] -> [B, C, h, w], with torchvision's names (`features` of its ConvNeXt).

    `stochastic_depth`: probability that training skips the last block; it rises linearly from 0 at the first one.
    Raises ConfigError when widths and blocks differ in number, or there is a single block.
    """
    if len(widths) != len(blocks) or sum(blocks) < 2:
        raise ConfigError(
            f"A ConvNeXt needs a number of blocks for each width, two blocks or more in all; widths are "
            f"{list(widths)}, blocks {list(blocks)}."
        )
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt  # which loads as much as PyTorch itself

    from geodtr.training.models.backbones.convnext_block import Block

    settings = [
        CNBlockConfig(width, following, count)
        for (width, following), count in zip(pairwise([*widths, None]), blocks, strict=True)
    ]
    stages: nn.Sequential = ConvNeXt(settings, stochastic_depth, layer_scale, num_classes=1, block=Block).features
    return stages


def grid(stages: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of the features behind `stages` stages. Raises ConfigError when the input is too small."""
    stride = STEM_STRIDE * DOWNSAMPLING ** (stages - 1)
    height, width = preprocessing.height // stride, preprocessing.width // stride
    if not height or not width:
        raise ConfigError(
            f"An input of {preprocessing.height}x{preprocessing.width} is too small for this network: both sides need "
            f"at least {stride} pixels."
        )
    return height, width
