"""CDE's objective: descriptors match, and a street view can be drawn of what describes a tile.

A step is three updates, in the order of the release: the discriminator learns to tell drawn street views from real
ones; what retrieves learns to match the encoder's features as they are; encoder and decoder learn to draw views that
pass for real ones and look like the pair's, and to be matched. Source: Toker et al., CVPR 2021, and its release.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import per_channel
from geodtr.training.config import TrainConfig
from geodtr.training.losses.contrastive import soft_margin_triplet
from geodtr.training.models.cde import Cde, Encoder, SpectralConv
from geodtr.training.models.cde_synthesis import Decoder, Discriminator
from geodtr.training.objectives.base import Scale, StepInput, Updates, autocast, frozen, taken_for
from geodtr.training.parallel.branch_threads import BranchThreads
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.parallel.grad_cache import Outputs, backward

_HALVINGS = 3
_SMALLEST = 24
"""Side of which the discriminator has a patch."""


class StreetViews:
    """An `Objective` for CDE."""

    updates: Sequence[str] = ("discriminator", "matching", "drawing")

    def __init__(self, config: TrainConfig, model: Cde, ranks: Ranks) -> None:
        """Raises ConfigError when the images' sizes or values are none that the decoder draws."""
        _check(config)
        self._config, self._ranks, self._model = config, ranks, model
        assert isinstance(model.aerial.backbone, Encoder)
        self._encoder = model.aerial.backbone
        self._decoder, self._discriminator = Decoder(model.config), Discriminator(model.config)
        self.networks: nn.Module = nn.ModuleDict(
            {"model": model, "decoder": self._decoder, "discriminator": self._discriminator}
        )
        self.branches = BranchThreads(parallel=False)  # what one branch does here, the other waits for
        self.described: tuple[Tensor, Tensor] | None = None

    def gradients(self, step: StepInput, scale: Scale) -> Updates:
        """Three updates: of the discriminator, of what retrieves, and of encoder and decoder."""
        recipe, model, images = self._config.recipe, self._model, step.images
        # A run that is resumed has made no step of the power iteration with these weights.
        for module in self.networks.modules():
            if isinstance(module, SpectralConv):
                module.renew()
        single = len(images) == 1
        with torch.set_grad_enabled(single):  # one micro-batch needs one pass through the generator
            drawn = [self._draw(each) for each in images]

        def match(ground: Tensor, aerial: Tensor) -> Tensor:
            return soft_margin_triplet(ground, aerial, recipe.triplet_alpha, hardest=step.hardest, tiles=step.tiles)

        def update(forward: Callable[[int], Outputs], loss_of: Callable[[Outputs], Tensor]) -> Tensor:
            self.networks.zero_grad(set_to_none=True)
            return backward(self.networks, forward, len(images), loss_of, ranks=self._ranks, scale=scale)

        def judge_both(index: int) -> Outputs:
            views = torch.cat([images[index]["ground"], drawn[index][1].detach()])
            real, fake = self._judge(torch.cat([images[index]["aerial"]] * 2), views).chunk(2)
            return real, fake

        def describe(index: int) -> Outputs:
            return self._describe(images[index]["ground"]), model.aerial.describe(drawn[index][0].detach())

        def draw(index: int) -> Outputs:
            features, views = drawn[index] if single else self._draw(images[index])
            apart = (views - images[index]["ground"]).abs().mean(dim=(1, 2, 3))
            return self._judge(images[index]["aerial"], views), apart, model.aerial.describe(features)

        def judgement(outputs: Outputs) -> Tensor:
            real, fake = outputs
            return (taken_for(recipe.real_label, real) + taken_for(0.0, fake)) / 2

        def matched(outputs: Outputs) -> Tensor:
            self.described = outputs[0].detach(), outputs[1].detach()
            return match(*outputs)

        def drawing(outputs: Outputs) -> Tensor:
            judged, apart, aerial = outputs
            passed = taken_for(recipe.real_label, judged)
            return passed + recipe.l1_weight * apart.mean() + recipe.matching_weight * match(ground, aerial)

        yield update(judge_both, judgement)
        yield update(describe, matched)
        with frozen(self._discriminator, model.ground, model.aerial.layout):
            with torch.no_grad():
                ground = torch.cat([self._ranks.gather(self._describe(each["ground"])) for each in images])
            yield update(draw, drawing)

    def _draw(self, images: Mapping[Branch, Tensor]) -> tuple[Tensor, Tensor]:
        """The encoder's features [b, C, N] of the tiles, and the street views drawn of them, both float32."""
        with autocast(self._config, self._ranks):
            stages = self._encoder.stages(images["aerial"])
            views = self._decoder(*stages)
        return stages[-1].float().flatten(2), views.float()

    def _judge(self, tiles: Tensor, views: Tensor) -> Tensor:
        with autocast(self._config, self._ranks):
            logits: Tensor = self._discriminator(torch.cat([tiles, views], dim=1))
        return logits.float()

    def _describe(self, panoramas: Tensor) -> Tensor:
        with autocast(self._config, self._ranks):
            features = self._model.ground.backbone(panoramas)
        return self._model.ground.describe(features.float().flatten(2))


def _check(config: TrainConfig) -> None:
    ground, aerial = config.ground, config.aerial
    size = (aerial.height, aerial.width)
    if (ground.height, ground.width) != size or any(side % 2**_HALVINGS or side < _SMALLEST for side in size):
        raise ConfigError(
            f'recipe.loss "adversarial" draws a street view as large as the polar tile, whose sides {2**_HALVINGS} '
            f"must divide, from {_SMALLEST} on; ground is {ground.height}x{ground.width} and aerial "
            f"{aerial.height}x{aerial.width}. Make them equal, or set recipe.loss=triplet."
        )
    if any(value != 0.5 for given in (ground.mean, ground.std) for value in per_channel(given)):
        raise ConfigError(
            f'recipe.loss "adversarial" draws values from -1 to 1; ground.mean is {ground.mean} and ground.std '
            f"{ground.std}. Set both to 0.5, or recipe.loss=triplet."
        )
