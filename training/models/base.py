"""What every model of the family is to the rest of the house: two branches, each with its spec.

Trainer, exporter, parity and runtime know these few names only; a new model is one file with its defaults, and its line
in the catalogue.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from geodtr.runtime.names import Branch
from geodtr.runtime.spec import BranchSpec

Uniform = Callable[[Sequence[int]], Tensor]
"""Draws float32 from U(0, 1): asked for a shape [...], gives [B, ...], a row for each image of the batch at hand.

A row's values are its pair's own, however a batch is cut into parts or spread over processes."""


class CrossViewModel(nn.Module, ABC):
    """Both branches of one model; `specs` says what each takes and gives."""

    specs: dict[Branch, BranchSpec]

    @abstractmethod
    def branch(self, branch: Branch) -> nn.Module:
        """Normalised images [B, 3, H, W] -> unit descriptors [B, D]: the part that is exported."""

    def training_outputs(self, branch: Branch, images: Tensor, uniform: Uniform) -> tuple[Tensor, ...]:
        """What the losses take: float32 unit descriptors [B, D] and, where the model has them, counterfactual ones."""
        del uniform
        return (self.branch(branch)(images).float(),)

    @property
    def trunks(self) -> list[nn.Module]:
        """The parts with most of the arithmetic: what is worth compiling."""
        return [self.branch("ground"), self.branch("aerial")]
