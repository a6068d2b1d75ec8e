"""The objective of FusionGAN's stage 1: tiles that are drawn of panoramas look like the pair's, and like real ones.

A step is two updates: the discriminator learns to tell drawn tiles from real ones, and the generator to draw tiles that
pass for real ones and look like the pair's. Source: Regmi and Shah, ICCV 2019, and its release.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.training.config import TrainConfig
from geodtr.training.models.fusiongan_stage1 import Discriminator, FusionGanStage1
from geodtr.training.objectives.base import Scale, StepInput, Updates, autocast, frozen, taken_for
from geodtr.training.parallel.branch_threads import BranchThreads
from geodtr.training.parallel.distributed import Ranks, share_batch_norm
from geodtr.training.parallel.grad_cache import Outputs, backward, frozen_statistics
from geodtr.training.seeding import Purpose, seed_of

_SMALLEST = 48
"""Side of which the discriminator has a patch."""


class DrawnTiles:
    """An `Objective` for FusionGAN's stage 1."""

    updates: Sequence[str] = ("discriminator", "generator")

    def __init__(self, config: TrainConfig, model: FusionGanStage1, ranks: Ranks) -> None:
        """Raises ConfigError when the tiles are too small for the discriminator."""
        if config.aerial.height < _SMALLEST:
            raise ConfigError(
                f'The model "fusiongan-stage1" has a discriminator for tiles from {_SMALLEST}x{_SMALLEST} on; aerial '
                f"is {config.aerial.height}x{config.aerial.width}. Set aerial.height and aerial.width higher."
            )
        self._config, self._ranks, self._generator = config, ranks, model.generator
        self._discriminator = Discriminator(model.config.generator)
        share_batch_norm(self._discriminator, ranks)
        self.networks: nn.Module = nn.ModuleDict({"model": model, "discriminator": self._discriminator})
        self.branches = BranchThreads(parallel=False)
        self.described: tuple[Tensor, Tensor] | None = None

    def gradients(self, step: StepInput, scale: Scale) -> Updates:
        """Two updates: of the discriminator, and of the generator against it as it then is."""
        recipe, count = self._config.recipe, len(step.images)
        real = [self._generator.values(images["aerial"]) for images in step.images]
        single = count == 1  # which needs one pass through the generator
        with torch.set_grad_enabled(single), nullcontext() if single else frozen_statistics(self._generator):
            drawn = [self._draw(step, index) for index in range(count)]

        def update(forward: Callable[[int], Outputs], loss_of: Callable[[Outputs], Tensor]) -> Tensor:
            self.networks.zero_grad(set_to_none=True)
            return backward(self.networks, forward, count, loss_of, ranks=self._ranks, scale=scale)

        def judge(index: int) -> Outputs:
            return self._judge(real[index]), self._judge(drawn[index].detach())

        def judgement(outputs: Outputs) -> Tensor:
            return taken_for(recipe.real_label, outputs[0]) + taken_for(0.0, outputs[1])

        def draw(index: int) -> Outputs:
            tiles = drawn[index] if single else self._draw(step, index)
            return self._judge(tiles), (tiles - real[index]).abs().mean(dim=(1, 2, 3))

        def drawing(outputs: Outputs) -> Tensor:
            judged, apart = outputs
            return taken_for(recipe.real_label, judged) + recipe.l1_weight * apart.mean()

        yield update(judge, judgement)
        with frozen(self._discriminator):
            yield update(draw, drawing)

    def _draw(self, step: StepInput, index: int) -> Tensor:
        """The tiles of micro-batch `index`, values from -1 to 1, with the same dropout each time."""
        torch.manual_seed(seed_of(self._config.recipe.seed, Purpose.DROPOUT, step.number, index, self._ranks.number))
        with autocast(self._config, self._ranks):
            tiles: Tensor = self._generator(step.images[index]["ground"])
        return self._generator.values(tiles.float())

    def _judge(self, tiles: Tensor) -> Tensor:
        with autocast(self._config, self._ranks):
            logits: Tensor = self._discriminator(tiles)
        return logits.float()
