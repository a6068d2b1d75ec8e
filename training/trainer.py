"""A model with its optimiser, and one optimiser step.

Knows pixels and losses, but not the order of pairs, files or signals. Source: Zhang et al., AAAI 2023, section 4.2.
"""

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from geodtr.runtime.errors import UserError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.augment.views import DrawnViews, draw_views
from geodtr.training.augmented import augmented
from geodtr.training.config import Recipe, TrainConfig
from geodtr.training.listener import Step
from geodtr.training.losses.contrastive import counterfactual, info_nce, soft_margin_triplet
from geodtr.training.losses.exemplars import Exemplars, reweighted_triplet
from geodtr.training.models.registry import Model, build_model
from geodtr.training.negatives.mining import LastDescriptors
from geodtr.training.pair_images import PairBatch, PairImages
from geodtr.training.parallel.branch_threads import BranchThreads, can_run_in_threads
from geodtr.training.parallel.distributed import Ranks, share_batch_norm
from geodtr.training.parallel.grad_cache import Gradients, Outputs, backpropagate, backward
from geodtr.training.qat import simulate_int8
from geodtr.training.seeding import Purpose, generator, seed_of
from geodtr.training.sharpness import climbed

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
        self.memory_format = torch.channels_last if machine.channels_last else torch.contiguous_format
        self.model.to(device).train()
        self.model.to(memory_format=self.memory_format)
        if machine.compile:
            for trunk in self.model.trunks:
                trunk.compile()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, eps=recipe.epsilon
        )
        self.branches = BranchThreads(
            # Ranks exchange statistics at each batch normalisation, and all need the same order.
            parallel=device.type == "cpu" and ranks.count == 1 and can_run_in_threads(self.model)
        )
        self.memory: LastDescriptors | None = None
        self._described: tuple[Tensor, Tensor] | None = None
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
            with self.branches.step():
                loss, gradient = self.update(batch, rate)
            if self.memory is not None and self._described is not None:
                self.memory.store(rows, *self._described)
            end = time.perf_counter()
            yield Step(
                number=self.step,
                total=self.total,
                epoch=epoch,
                epochs=recipe.epochs,
                pairs=recipe.batch_size,
                loss=loss,
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

    def update(self, batch: Sequence[PairBatch], rate: float) -> tuple[float, float]:
        """Update the weights from the micro-batches in `batch`; return the loss and the gradient norm."""
        recipe, ranks = self.config.recipe, self.ranks
        hardest = _hardest(self.step - 1, self.total, recipe.hardest)
        # Two views of one tile differ in their layout, and are negatives of each other.
        numbers = [torch.cat([part.tiles * recipe.views + view for view in range(recipe.views)]) for part in batch]
        tiles = torch.cat([ranks.gather(each.to(ranks.device)) for each in numbers])
        images = self._augment(batch)

        def forward(index: int) -> Outputs:
            return self._forward(images[index], index)

        def match(ground: Tensor, aerial: Tensor) -> Tensor:
            if recipe.loss == "infonce":
                assert self.model.logit_scale is not None, "the configuration is checked"
                return info_nce(ground, aerial, self.model.logit_scale, recipe.label_smoothing, tiles=tiles)
            if recipe.loss != "triplet":
                return reweighted_triplet(ground, aerial, _exemplars(recipe), tiles=tiles)
            similarity = self.model.similarity
            return soft_margin_triplet(
                ground, aerial, recipe.triplet_alpha, hardest=hardest, tiles=tiles, similarity=similarity
            )

        def loss_of(outputs: Outputs) -> Tensor:
            middle = self._middle(outputs)
            weights, looks = self.model.output_weights, recipe.looks
            grounds, imagined_ground = outputs[:looks], outputs[looks * len(weights) : middle]
            aerial, imagined_aerial = outputs[middle], outputs[middle + len(weights) :]
            if self._described is None:  # in the first pass of a step, with the weights as they are
                self._described = grounds[0].detach(), aerial.detach()
            matched = [
                weight * match(ground, outputs[middle + index]) / looks
                for index, weight in enumerate(weights)
                for ground in outputs[index * looks : (index + 1) * looks]
            ]
            loss = torch.stack(matched).sum()
            if recipe.consistency:
                loss = loss + recipe.consistency * match(*grounds)
            if recipe.counterfactual_weight:
                weight = recipe.counterfactual_weight / 2
                for index, other in enumerate(imagined_ground):
                    real = grounds[index % recipe.looks]
                    loss = loss + weight / recipe.looks * counterfactual(real, other, recipe.counterfactual_beta)
                for other in imagined_aerial:
                    loss = loss + weight * counterfactual(aerial, other, recipe.counterfactual_beta)
            return loss

        def descend() -> Tensor:
            return backward(
                self.model,
                forward,
                len(batch),
                loss_of,
                ranks=ranks,
                scale=self.scaler.scale,
                propagate=self._propagate,
            )

        self._described = None
        self.optimizer.zero_grad(set_to_none=True)
        loss = descend().item()
        if recipe.sharpness:
            with climbed(self.model.parameters(), recipe.sharpness):
                descend()
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"The loss is {loss} at step {self.step} of {self.total}. Lower recipe.learning_rate (now "
                f"{recipe.learning_rate}). The run's folder holds the last valid state, if any."
            )
        self.scaler.unscale_(self.optimizer)
        gradient = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm).item()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss, gradient

    def _augment(self, batch: Sequence[PairBatch]) -> list[dict[Branch, Tensor]]:
        """The images of each micro-batch as the networks take them."""
        return augmented(self.config, batch, self.step, self.ranks, self.branches.map, self.memory_format)

    def _forward(self, images: dict[Branch, Tensor], index: int) -> Outputs:
        """Run micro-batch `index` of this step through both branches; deterministic, as it may run twice."""
        seed, ranks = self.config.recipe.seed, self.ranks
        size = self.config.micro_batch * self.config.recipe.views
        share = ranks.share(size)
        torch.manual_seed(seed_of(seed, Purpose.DROPOUT, self.step, index, ranks.number))
        half = _HALF.get(self.config.machine.precision)

        def run(branch: Branch) -> Outputs:
            random = generator(seed, Purpose.IMAGINED, self.step, index, BRANCHES.index(branch))

            looks = self.config.recipe.looks if branch == "ground" else 1

            def uniform(shape: Sequence[int]) -> Tensor:
                rows = [torch.rand((size, *shape), generator=random)[share] for _ in range(looks)]
                return torch.cat(rows).to(ranks.device)

            with torch.autocast(ranks.device.type, dtype=half, enabled=half is not None):
                outputs = self.model.training_outputs(branch, images[branch], uniform)
            return tuple(part for output in outputs for part in output.chunk(looks)) if looks > 1 else outputs

        outputs = self.branches.map(run)
        return (*outputs["ground"], *outputs["aerial"])

    def _middle(self, outputs: Outputs) -> int:
        """Where the aerial branch's begin: the ground branch has as many for each look at its panoramas."""
        looks = self.config.recipe.looks
        return len(outputs) * looks // (looks + 1)

    def _propagate(self, outputs: Outputs, gradients: Gradients) -> None:
        """Backpropagate each branch separately."""
        middle = self._middle(outputs)
        parts: dict[Branch, slice] = {"ground": slice(None, middle), "aerial": slice(middle, None)}
        self.branches.map(lambda branch: backpropagate(outputs[parts[branch]], gradients[parts[branch]]))


def _exemplars(recipe: Recipe) -> Exemplars:
    return Exemplars(
        scale=recipe.exemplar_scale,
        margin=recipe.exemplar_margin,
        removes_simple=recipe.loss == "seh",
        both_directions=recipe.exemplar_both,
        detached=recipe.exemplar_detach,
    )


def _hardest(step: int, total: int, last: float) -> float:
    """The share of triplets that count: falls exponentially from 1 to `last` over the first half of the run.

    A small share from the start makes all descriptors collapse into one point.
    """
    return float(last ** min(1.0, 2 * step / total))


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
