"""The interface of an objective: the trainer updates the weights with the gradients that it gives."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.names import Branch
from geodtr.training.config import TrainConfig
from geodtr.training.parallel.branch_threads import BranchThreads
from geodtr.training.parallel.distributed import Ranks

Scale = Callable[[Tensor], Tensor]
"""Scales a loss, as a gradient scaler does."""

Updates = Generator[Tensor, None, None]
"""The loss of each update of a step, in turn."""

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class StepInput:
    """What one step learns from.

    Attributes
    ----------
    number
        Of the step, from 1.
    images
        Of each micro-batch and branch, augmented and normalised [b, 3, H, W].
    tiles
        int64 [B], the tile of each descriptor of the whole batch, over all ranks.
    hardest
        Share of triplets that count.
    """

    number: int
    images: Sequence[Mapping[Branch, Tensor]]
    tiles: Tensor
    hardest: float


class Objective(Protocol):
    """What a run trains for."""

    updates: Sequence[str]
    """Names of the updates of a step, for the log."""

    networks: nn.Module
    """Everything that is trained: the model, alone or with networks that its checkpoints leave out."""

    branches: BranchThreads
    """What may run the work of both branches at once."""

    described: tuple[Tensor, Tensor] | None
    """The descriptors of the last batch, ground and aerial [B, D], before its first update."""

    def gradients(self, step: StepInput, scale: Scale) -> Updates:
        """Yield the loss of each update of this step, when the parameters have the gradients of `scale` of it alone.

        The caller updates the weights before it goes on.
        """
        ...


def autocast(config: TrainConfig, ranks: Ranks) -> torch.autocast:
    """The arithmetic of the networks; losses and what leads to them from descriptors are float32."""
    half = _HALF.get(config.machine.precision)
    return torch.autocast(ranks.device.type, dtype=half, enabled=half is not None)


def taken_for(label: float, logits: Tensor) -> Tensor:
    """Mean cross-entropy of all patches to `label`: 1 for real, 0 for drawn."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Gradients go through `networks`, and none are of their parameters."""
    learning = [each for network in networks for each in network.parameters() if each.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
