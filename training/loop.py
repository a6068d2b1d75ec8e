"""The training loop: from pairs to a checkpoint.

Source: Zhang et al., AAAI 2023, section 4.2. One configuration and seed give one result on one machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from geodtr.runtime.errors import ConfigError, UserError
from geodtr.runtime.files import refuse_existing, write_bytes
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Preprocessing
from geodtr.training.checkpoint import LAST, save_checkpoint
from geodtr.training.config import TrainConfig
from geodtr.training.data.pair_set import PairSet
from geodtr.training.layout_simulation import change_square, change_unrolled, random_quarter_turns, random_turns
from geodtr.training.losses import counterfactual, soft_margin_triplet
from geodtr.training.models.embedder import normalise
from geodtr.training.models.geodtr import GeoDTR
from geodtr.training.pair_images import PairImages


class TrainingDiverged(UserError):
    """The loss is no longer a number: nothing that follows would be worth saving."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step, as told to whoever listens; `number` counts from 1 to `total`, `epoch` from 0."""

    number: int
    total: int
    epoch: int
    epochs: int
    loss: float


def train(
    config: TrainConfig,
    pair_set: PairSet,
    out: Path,
    *,
    track: Track = untracked,
    on_step: Callable[[Step], None] = lambda _step: None,
) -> Path:
    """Train a model; write `out`/config.json, then `out`/last.safetensors after every epoch, and return the latter.

    Uses a GPU where there is one. Raises OutputExists when `out` holds anything, ConfigError when the pairs do not fill
    one batch, ImageError when an image cannot be read.
    """
    refuse_existing(out)
    if len(pair_set) < config.batch_size:
        raise ConfigError(f"{pair_set.name} holds {len(pair_set)} pairs, fewer than one batch of {config.batch_size}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = PairImages(pair_set, {"ground": config.ground, "aerial": config.aerial}, track)
    checkpoint = out / LAST
    write_bytes(out / "config.json", msgspec.json.format(msgspec.json.encode(config)))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        model = GeoDTR(config.model, config.ground, config.aerial).to(device).train()
        total = config.epochs * (len(images) // config.batch_size)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, eps=1e-6
        )
        schedule = LambdaLR(optimizer, lambda step: _rate(step, total, config.warmup))
        number = 0
        for epoch in range(config.epochs):
            order = torch.randperm(len(images), generator=generator)
            for batch in images.batches(order, config.batch_size):
                ground, aerial = _simulate(*batch, config, generator)
                number += 1
                loss = _loss(model, ground.to(device), aerial.to(device), config)
                if not torch.isfinite(loss):
                    raise TrainingDiverged(
                        f"The loss is {loss.item()} at step {number} of {total}. Lower learning_rate "
                        f"(now {config.learning_rate}). The last good epoch, if any, is in {checkpoint}."
                    )
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
                optimizer.step()
                schedule.step()
                on_step(Step(number, total, epoch, config.epochs, loss.item()))
            save_checkpoint(checkpoint, model, f"trained on {pair_set.name}, {epoch + 1} of {config.epochs} epochs")
    return checkpoint


def _loss(model: GeoDTR, ground: Tensor, aerial: Tensor, config: TrainConfig) -> Tensor:
    f_ground, imagined_ground = model.ground.with_counterfactual(_normalised(ground, config.ground))
    f_aerial, imagined_aerial = model.aerial.with_counterfactual(_normalised(aerial, config.aerial))
    causal = counterfactual(f_ground, imagined_ground, config.counterfactual_beta)
    causal = causal + counterfactual(f_aerial, imagined_aerial, config.counterfactual_beta)
    return soft_margin_triplet(f_ground, f_aerial, config.triplet_alpha) + causal / 2


def _normalised(images: Tensor, how: Preprocessing) -> Tensor:
    return normalise(images, how.mean, how.std)


def _simulate(ground: Tensor, aerial: Tensor, config: TrainConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if config.layout == "none":
        return ground, aerial
    draw = random_turns if config.layout == "any-angle" else random_quarter_turns
    change = draw(len(ground), generator)
    change_aerial = change_unrolled if config.aerial.polar else change_square
    return change_unrolled(ground, change), change_aerial(aerial, change)


def _rate(step: int, total: int, warmup: float) -> float:
    """Share of the learning rate at `step`: linear from above zero, then a cosine to zero."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
