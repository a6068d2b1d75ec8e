"""FusionGAN's stage 1: the generator alone, trained to draw a panorama's tile, and its discriminator.

Source: X-Fork (Regmi and Borji, CVPR 2018), as FusionGAN's release trains it (ICCV 2019). Its second output, a
segmentation, is left out: data sets have none to learn it from. Works on normalised images; losses are out of scope.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NoReturn

from torch import nn

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.base import CrossViewModel, ModelSettings, Share, specs_of
from geodtr.training.models.fusiongan import FusionGanConfig, Generator, Widths

_SLOPE = 0.2


class FusionGanStage1Config(ModelSettings, frozen=True, kw_only=True, tag="fusiongan-stage1"):
    """`generator` as stage 2's; `dropout` follows the first steps of its decoder."""

    generator: Widths = FusionGanConfig().generator
    dropout: Share = 0.5


class FusionGanStage1(CrossViewModel):
    """A generator whose weights have the names that they have in stage 2. It describes no image."""

    def __init__(self, config: FusionGanStage1Config, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config.generator, ground, aerial, config.dropout)
        for step in (*self.generator.encoder, *self.generator.decoder):
            step.conv.bias.requires_grad_(False)  # the release sets it to zero at each step, and it begins so
        self.specs = specs_of(ground, aerial, descriptor_size=0)

    def branch(self, branch: Branch) -> NoReturn:
        """Raises CheckpointError: evaluation, export and engines need descriptors."""
        raise CheckpointError(
            f'The model "fusiongan-stage1" draws tiles and has no descriptors, and so no {branch} branch: it is what '
            "stage 2 begins with. Train that, and use its run: "
            "geodtr-export train --preset fusiongan-cvusa --set recipe.start=RUN ..."
        )

    @property
    def trained(self) -> Mapping[Branch, nn.Module]:
        return {"ground": self.generator}


class Discriminator(nn.Sequential):
    """Tiles, values from -1 to 1 [B, 3, S, S] -> a logit of each patch [B, 1, h, w], high for real tiles.

    X-Fork's PatchGAN, which does not see the panorama. It has no biases: the release sets them to zero at each step.
    """

    def __init__(self, generator: Sequence[int]) -> None:
        first = generator[0]
        layers = list[nn.Module]()
        for number, (width_in, width) in enumerate(pairwise((3, first, 2 * first, 4 * first, 8 * first, 8 * first, 1))):
            conv = nn.Conv2d(width_in, width, 4, stride=2 if number < 4 else 1, padding=1, bias=False)
            nn.init.normal_(conv.weight, std=0.02)
            layers.append(conv)
            if 0 < number < 5:
                norm = nn.BatchNorm2d(width)
                nn.init.normal_(norm.weight, 1.0, 0.02)
                layers.append(norm)
            layers.append(nn.LeakyReLU(_SLOPE))
        super().__init__(*layers[:-1])
