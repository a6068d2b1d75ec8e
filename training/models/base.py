"""The interface of a cross-view model: two branches, each with its spec.

Trainer, exporter, parity and runtime use only this interface. A new model is one file with its defaults and one entry
in the registry.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Generic, Protocol, TypeVar, runtime_checkable

import msgspec
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import BranchSpec, Preprocessing

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Depth = Annotated[int, msgspec.Meta(ge=1, le=100)]
Layers = Annotated[int, msgspec.Meta(ge=0, le=100)]
"""Sizes and repetitions in a configuration. Bounded, because modules take time and memory even where their tensors
take none."""

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]

M = TypeVar("M", bound=nn.Module)

Uniform = Callable[[Sequence[int]], Tensor]
"""Draws float32 from U(0, 1): shape [...] -> [B, ...], one row per image of the current batch.

A row's values belong to its pair; they do not depend on micro-batches or processes."""


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name"):
    """The configuration of a model; `name`, the tag of its kind, is which."""


class CrossViewModel(nn.Module, ABC):
    """Both branches of one model, which may share weights; `specs` describes the input and output of each."""

    specs: dict[Branch, BranchSpec]

    output_weights: Sequence[float] = (1.0,)
    """Of the pairs of training outputs that the loss compares, one of each branch; the first are the descriptors."""

    logit_scale: nn.Parameter | None
    """Logarithm of the InfoNCE loss's inverse temperature, a trained scalar; None if the model has none."""

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("logit_scale", None)

    @abstractmethod
    def branch(self, branch: Branch) -> nn.Module:
        """The exported module: normalised images [B, 3, H, W] -> unit descriptors [B, D].

        Raises CheckpointError when the model has none: it is trained for another to begin with.
        """

    def training_outputs(self, branch: Branch, images: Tensor, uniform: Uniform) -> tuple[Tensor, ...]:
        """Inputs of the losses: float32 unit rows [B, D] for each of `output_weights` and, if the model has them,
        counterfactual ones; as many of both branches.
        """
        del uniform
        return (self.branch(branch)(images).float(),)

    def similarity(self, ground: Tensor, aerial: Tensor) -> Tensor:
        """What the loss compares: all of one view with all of the other, [B, G] and [B, A] -> [B, B]; the cosines."""
        return ground @ aerial.T

    @property
    def trained(self) -> Mapping[Branch, nn.Module]:
        """What training runs of the images of each branch, normalised [B, 3, H, W]."""
        return {branch: self.branch(branch) for branch in BRANCHES}

    @property
    def trunks(self) -> list[nn.Module]:
        """The modules with most of the arithmetic; these are worth compiling."""
        return [*self.trained.values()]


class TwoNetworks(CrossViewModel, Generic[M]):
    """Two branches without shared weights, each made by `make` for its input."""

    def __init__(
        self, make: Callable[[Preprocessing], M], descriptor_size: int, ground: Preprocessing, aerial: Preprocessing
    ) -> None:
        super().__init__()
        self.ground = make(ground)
        self.aerial = make(aerial)
        self.specs = specs_of(ground, aerial, descriptor_size)

    def branch(self, branch: Branch) -> M:
        return self.ground if branch == "ground" else self.aerial


def specs_of(ground: Preprocessing, aerial: Preprocessing, descriptor_size: int) -> dict[Branch, BranchSpec]:
    """The specs of two branches whose descriptors are compared by their cosine."""
    return {
        branch: BranchSpec(branch=branch, preprocessing=how, descriptor_size=descriptor_size)
        for branch, how in zip(BRANCHES, (ground, aerial), strict=True)
    }


@runtime_checkable
class Folds(Protocol):
    """A module that computes its weights of others: an exported graph would compute them again for each batch."""

    def folded(self) -> nn.Module:
        """A module with plain weights that gives the same."""
        ...


def check_heads(width: int, of: str, heads: int) -> None:
    """Raise ConfigError when `heads` do not divide the width of `of`."""
    if width % heads:
        allowed = [number for number in range(1, width + 1) if width % number == 0]
        raise ConfigError(f"{heads} heads do not divide {width}, {of}; allowed here: {', '.join(map(str, allowed))}.")
