"""A model with its optimiser, and one step of its objective.

Knows pixels and losses, but not the order of pairs, files or signals. Source: Zhang et al., AAAI 2023, section 4.2.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import torch
from torch import Tensor, nn

from geodtr.runtime.errors import UserError
from geodtr.runtime.names import Branch
from geodtr.training.augment.views import DrawnViews, draw_views
from geodtr.training.augmented import augmented
from geodtr.training.config import Recipe, TrainConfig
from geodtr.training.listener import Step
from geodtr.training.models.cde import Cde
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1
from geodtr.training.models.registry import Model, build_model
from geodtr.training.negatives.mining import LastDescriptors
from geodtr.training.objectives.base import Objective, StepInput
from geodtr.training.objectives.drawn_tiles import DrawnTiles
from geodtr.training.objectives.matching import Matching
from geodtr.training.objectives.street_views import StreetViews
from geodtr.training.pair_images import PairBatch, PairImages
from geodtr.training.parallel.distributed import Ranks, share_batch_norm
from geodtr.training.qat import simulate_int8
from geodtr.training.seeding import Purpose, generator, seed_of

_LARGE = 2**15
"""Pixels. Channels last was faster with images of 48x192 and slower with 122x671; nothing between was measured."""


class TrainingDiverged(UserError):
    """The loss is not finite."""


class Trainer:
    """A model with its optimiser."""

    def __init__(self, config: TrainConfig, ranks: Ranks, total: int = 1) -> None:
        """`total`: number of steps of the learning rate schedule."""
        self.config, self.ranks, self.total, self.step = config, ranks, total, 0
        recipe, machine, device = config.recipe, config.machine, ranks.device
        torch.manual_seed(seed_of(recipe.seed, Purpose.WEIGHTS))
        self.model: Model = build_model(config.model, config.ground, config.aerial)
        share_batch_norm(self.model, ranks)
        simulate_int8(self.model, config.int8)
        self.memory_format = memory_format(config, device)
        self.objective: Objective = _objective(config, self.model, ranks)
        self.networks = self.objective.networks
        self.networks.to(device).train()
        self.networks.to(memory_format=self.memory_format)
        if machine.compile:
            for trunk in self.model.trunks:
                trunk.compile()
        # One optimiser for all updates of a step: each of them has gradients of its own parameters alone.
        self.optimizer = torch.optim.AdamW(
            self.networks.parameters(),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, 0.999),
            weight_decay=recipe.weight_decay,
            eps=recipe.epsilon,
        )
        self.memory: LastDescriptors | None = None
        self.scaler = torch.amp.GradScaler(device.type, enabled=machine.precision == "fp16")

    def steps(self, images: PairImages, batches: Sequence[Tensor], epoch: int) -> Iterator[Step]:
        """Run one optimiser step for each of `batches`, int64 [B] row numbers of pairs, all of one epoch."""
        recipe, micro_batch = self.config.recipe, self.config.micro_batch
        share = self.ranks.share(micro_batch)
        parts = images.batches(
            [part[share] for rows in batches for part in torch.split(rows, micro_batch)],
            self.views_of(len(images), epoch),
        )
        count = recipe.batch_size // micro_batch
        end = time.perf_counter()
        for rows in batches:
            begin = end
            batch = [next(parts) for _ in range(count)]
            waited = time.perf_counter() - begin
            self.step += 1
            rate = recipe.learning_rate * _rate(self.step - 1, self.total, recipe)
            with self.objective.branches.step():
                losses, gradient = self.update(batch, rate)
            if self.memory is not None and self.objective.described is not None:
                self.memory.store(rows, *self.objective.described)
            end = time.perf_counter()
            yield Step(
                number=self.step,
                total=self.total,
                epoch=epoch,
                epochs=recipe.epochs,
                pairs=recipe.batch_size,
                losses=dict(zip(self.objective.updates, losses, strict=True)),
                gradient=gradient,
                learning_rate=rate,
                seconds=end - begin,
                waited=waited,
            )

    def views_of(self, pairs: int, epoch: int) -> DrawnViews | None:
        """What is seen of each of `pairs` panoramas in an epoch; None for all of it."""
        recipe = self.config.recipe
        if not recipe.fields:
            return None
        return draw_views(len(recipe.fields), recipe.heading_error, pairs, generator(recipe.seed, Purpose.VIEWS, epoch))

    def update(self, batch: Sequence[PairBatch], rate: float) -> tuple[tuple[float, ...], float]:
        """Update the weights from the micro-batches in `batch`; return each update's loss and the gradient norm."""
        recipe, ranks = self.config.recipe, self.ranks
        # Two views of one tile differ in their layout, and are negatives of each other.
        numbers = [torch.cat([part.tiles * recipe.views + view for view in range(recipe.views)]) for part in batch]
        tiles = torch.cat([ranks.gather(each.to(ranks.device)) for each in numbers])
        step = StepInput(self.step, self._augment(batch), tiles, _hardest(self.step - 1, self.total, recipe))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, norms = list[float](), list[float]()
        with closing(self.objective.gradients(step, self.scaler.scale)) as updates:
            for each in updates:
                losses.append(self._finite(each.item()))
                self.scaler.unscale_(self.optimizer)
                norms.append(nn.utils.clip_grad_norm_(self.networks.parameters(), recipe.clip_norm).item())
                self.scaler.step(self.optimizer)
                self.scaler.update()
        return tuple(losses), math.hypot(*norms)

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"The loss is {loss} at step {self.step} of {self.total}. Lower recipe.learning_rate (now "
                f"{self.config.recipe.learning_rate}). The run's folder holds the last valid state, if any."
            )
        return loss

    def _augment(self, batch: Sequence[PairBatch]) -> list[dict[Branch, Tensor]]:
        """The images of each micro-batch as the networks take them."""
        return augmented(self.config, batch, self.step, self.ranks, self.objective.branches.map, self.memory_format)


def memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    """How images and weights lie in memory."""
    last = config.machine.channels_last
    if last == "auto":
        # On CPUs with AVX2 alone, a step takes longer with channels last where images are large: see
        # benchmarks/training.py.
        large = max(how.height * how.width for how in (config.ground, config.aerial)) > _LARGE
        last = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2" or not large
    return torch.channels_last if last else torch.contiguous_format


def _objective(config: TrainConfig, model: Model, ranks: Ranks) -> Objective:
    if config.recipe.loss != "adversarial":
        return Matching(config, model, ranks)
    if isinstance(model, FusionGanStage1):
        return DrawnTiles(config, model, ranks)
    assert isinstance(model, Cde), "the configuration is checked"
    return StreetViews(config, model, ranks)


def _hardest(step: int, total: int, recipe: Recipe) -> float:
    """The share of triplets that count: by epoch, as listed, or falling exponentially from 1 over the first
    half of the run.

    A small share from the start makes all descriptors collapse into one point.
    """
    if recipe.hardest_from:
        epoch = step * recipe.epochs // total
        begun = [entry for entry in recipe.hardest_from if entry[0] <= epoch]
        return max(begun)[1] if begun else 1.0
    return float(recipe.hardest ** min(1.0, 2 * step / total))


def _rate(step: int, total: int, recipe: Recipe) -> float:
    """Factor of the learning rate at `step`: 1, or a linear warm-up and then a cosine to zero, by step or by epoch."""
    if recipe.schedule == "constant":
        return 1.0
    first = 1 if recipe.schedule == "step" else 0
    if recipe.schedule == "epoch":
        step, total = step * recipe.epochs // total, recipe.epochs
    rising = max(first, round(recipe.warmup * total))
    if step < rising:
        return (step + first) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
