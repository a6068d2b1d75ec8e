"""A model with its optimiser, and how it learns from one batch.

Knows pixels and losses; knows nothing of epochs' order, files or signals. Source: Zhang et al., AAAI 2023, section 4.2.
"""

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from geodtr.runtime.errors import UserError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.augment.layout_simulation import change_square, change_unrolled, draw_heading_errors, draw_layout
from geodtr.training.augment.photometric import change_semantic, draw_semantic
from geodtr.training.branch_threads import BranchThreads, draws_while_training
from geodtr.training.config import TrainConfig
from geodtr.training.distributed import Ranks, share_batch_norm
from geodtr.training.grad_cache import Gradients, Outputs, backward, carry_back
from geodtr.training.listener import Step
from geodtr.training.losses import counterfactual, soft_margin_triplet
from geodtr.training.models.embedder import normalise
from geodtr.training.models.registry import Model, build_model
from geodtr.training.pair_images import PairBatch, PairImages
from geodtr.training.qat import simulate_int8
from geodtr.training.seeding import For, generator, seed_of

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingDiverged(UserError):
    """The loss is no longer a number: nothing that follows would be worth saving."""


class Trainer:
    """A model with its optimiser, and how one step is done."""

    def __init__(self, config: TrainConfig, ranks: Ranks, total: int = 1) -> None:
        """`total`: the steps that the learning rate's schedule spans."""
        self.config, self.ranks, self.total, self.step = config, ranks, total, 0
        recipe, machine, device = config.recipe, config.machine, ranks.device
        torch.manual_seed(seed_of(recipe.seed, For.WEIGHTS))
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
            self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, eps=1e-6
        )
        self.branches = BranchThreads(
            # Processes that share a batch exchange its statistics at each batch normalisation, all in one order.
            parallel=device.type == "cpu" and ranks.count == 1 and not draws_while_training(self.model)
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=machine.precision == "fp16")

    def steps(self, images: PairImages, batches: Sequence[Tensor], epoch: int) -> Iterator[Step]:
        """One optimiser step for each of `batches`, int64 [B] rows of pairs, all of one epoch."""
        recipe, micro_batch = self.config.recipe, self.config.micro_batch
        mine = self.ranks.share(micro_batch)
        parts = images.batches([part[mine] for rows in batches for part in torch.split(rows, micro_batch)])
        count = recipe.batch_size // micro_batch
        end = time.perf_counter()
        for _ in batches:
            begin = end
            batch = [next(parts) for _ in range(count)]
            waited = time.perf_counter() - begin
            self.step += 1
            rate = recipe.learning_rate * _rate(self.step - 1, self.total, recipe.warmup)
            with self.branches.step():
                loss, gradient = self.update(batch, rate)
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

    def update(self, batch: Sequence[PairBatch], rate: float) -> tuple[float, float]:
        """Learn from the micro-batches in `batch`; returns the loss and the norm of its gradient."""
        recipe, ranks = self.config.recipe, self.ranks
        hardest = _share(self.step - 1, self.total, recipe.hardest)
        tiles = torch.cat([ranks.gather(part.tiles.to(ranks.device)) for part in batch])
        augmented = self._augment(batch)

        def forward(index: int) -> Outputs:
            return self._forward(augmented[index], index)

        def loss_of(outputs: Outputs) -> Tensor:
            half = len(outputs) // 2
            (ground, *imagined_ground), (aerial, *imagined_aerial) = outputs[:half], outputs[half:]
            loss = soft_margin_triplet(ground, aerial, recipe.triplet_alpha, hardest=hardest, tiles=tiles)
            if recipe.counterfactual_weight:
                for real, imagined in ((ground, imagined_ground), (aerial, imagined_aerial)):
                    for other in imagined:
                        share = recipe.counterfactual_weight / 2
                        loss = loss + share * counterfactual(real, other, recipe.counterfactual_beta)
            return loss

        self.optimizer.zero_grad(set_to_none=True)
        loss = backward(
            self.model, forward, len(batch), loss_of, ranks=ranks, scale=self.scaler.scale, carry=self._carry
        ).item()
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"The loss is {loss} at step {self.step} of {self.total}. Lower recipe.learning_rate (now "
                f"{recipe.learning_rate}). The last good state, if any, is in the run's folder."
            )
        self.scaler.unscale_(self.optimizer)
        gradient = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm).item()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss, gradient

    def _augment(self, batch: Sequence[PairBatch]) -> list[dict[Branch, Tensor]]:
        """Normalised images [b, 3, H, W] of each micro-batch: layouts changed alike but for the headings' errors, looks
        each view's own.
        """
        recipe, ranks = self.config.recipe, self.ranks
        size, mine = self.config.micro_batch, ranks.share(self.config.micro_batch)
        layout = draw_layout(recipe.layout, recipe.batch_size, generator(recipe.seed, For.LAYOUT, self.step))
        off = generator(recipe.seed, For.HEADINGS, self.step)
        seen = layout.turned(draw_heading_errors(recipe.heading_error, recipe.batch_size, off))
        changes = {"ground": seen, "aerial": layout}
        chance = generator(recipe.seed, For.SEMANTICS, self.step)
        looks = {branch: draw_semantic(recipe.semantic, recipe.batch_size, chance) for branch in BRANCHES}
        augmented = []
        for index, part in enumerate(batch):
            rows = slice(index * size + mine.start, index * size + mine.stop)

            def prepare(branch: Branch, part: PairBatch = part, rows: slice = rows) -> Tensor:
                how = self.config.ground if branch == "ground" else self.config.aerial
                change = change_unrolled if branch == "ground" or how.polar else change_square
                pixels = (part.ground if branch == "ground" else part.aerial).to(ranks.device, non_blocking=True)
                # Looks before layouts, as the release has it: the blur is upright in the picture that was taken.
                pixels = change(change_semantic(pixels, looks[branch].rows(rows)), changes[branch].rows(rows))
                normalised = normalise(pixels, how.mean, how.std)
                # Explicit in both cases: pixels come as [B, H, W, 3], so a mere view of them is channels-last already.
                return normalised.contiguous(memory_format=self.memory_format)

            augmented.append(self.branches.map(prepare))
        return augmented

    def _forward(self, images: dict[Branch, Tensor], index: int) -> Outputs:
        """Micro-batch `index` of this step through both branches; the same numbers whenever it is asked for."""
        seed, size, ranks = self.config.recipe.seed, self.config.micro_batch, self.ranks
        mine = ranks.share(size)
        torch.manual_seed(seed_of(seed, For.DROPOUT, self.step, index, ranks.number))
        half = _HALF.get(self.config.machine.precision)

        def run(branch: Branch) -> Outputs:
            chance = generator(seed, For.IMAGINED, self.step, index, BRANCHES.index(branch))

            def uniform(shape: Sequence[int]) -> Tensor:
                return torch.rand((size, *shape), generator=chance)[mine].to(ranks.device)

            with torch.autocast(ranks.device.type, dtype=half, enabled=half is not None):
                return self.model.training_outputs(branch, images[branch], uniform)

        outputs = self.branches.map(run)
        return (*outputs["ground"], *outputs["aerial"])

    def _carry(self, outputs: Outputs, gradients: Gradients) -> None:
        """Carry the gradients of `_forward`'s outputs back, each branch by itself: they share no parameter."""
        middle = len(outputs) // 2
        parts: dict[Branch, slice] = {"ground": slice(None, middle), "aerial": slice(middle, None)}
        self.branches.map(lambda branch: carry_back(outputs[parts[branch]], gradients[parts[branch]]))


def _share(step: int, total: int, last: float) -> float:
    """The share of triplets that count: all at first, then evenly fewer in proportion, `last` from half the run on.

    A small share from the start draws all descriptors into one point: of random ones the hardest triplets only push.
    """
    return float(last ** min(1.0, 2 * step / total))


def _rate(step: int, total: int, warmup: float) -> float:
    """Share of the learning rate at `step`: linear from above zero, then a cosine to zero."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
