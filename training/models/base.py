"""The interface of a cross-view model: two branches, each with its spec.

Trainer, exporter, parity and runtime use only this interface. A new model is one file with its defaults and one entry
in the registry.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from torch import Tensor, nn

from geodtr.runtime.names import Branch
from geodtr.runtime.spec import BranchSpec

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Depth = Annotated[int, msgspec.Meta(ge=1, le=100)]
"""Sizes and repetitions in a configuration. Bounded, because modules take time and memory even where their tensors
take none."""

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]

Uniform = Callable[[Sequence[int]], Tensor]
"""Draws float32 from U(0, 1): shape [...] -> [B, ...], one row per image of the current batch.

A row's values belong to its pair; they do not depend on micro-batches or processes."""


class CrossViewModel(nn.Module, ABC):
    """Both branches of one model, which may share weights; `specs` describes the input and output of each."""

    specs: dict[Branch, BranchSpec]

    logit_scale: nn.Parameter | None
    """Logarithm of the InfoNCE loss's inverse temperature, a trained scalar; None if the model has none."""

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("logit_scale", None)

    @abstractmethod
    def branch(self, branch: Branch) -> nn.Module:
        """The exported module: normalised images [B, 3, H, W] -> unit descriptors [B, D]."""

    def training_outputs(self, branch: Branch, images: Tensor, uniform: Uniform) -> tuple[Tensor, ...]:
        """Inputs of the losses: float32 unit descriptors [B, D] and, if the model has them, counterfactual ones."""
        del uniform
        return (self.branch(branch)(images).float(),)

    @property
    def trunks(self) -> list[nn.Module]:
        """The modules with most of the arithmetic; these are worth compiling."""
        return [self.branch("ground"), self.branch("aerial")]
