"""Explanation of a descriptor: maps over the feature grid."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Explanation:
    """Maps over the feature grid of h x w positions.

    `saliency` [B, h, w], at least 0: the strongest channel at each position. `layouts` [B, K, h, w] in [-1, 1]: the
    weight that each layout descriptor gives to each position.
    """

    saliency: Tensor
    layouts: Tensor


@runtime_checkable
class Explains(Protocol):
    """A branch that can explain its descriptor."""

    def explain(self, images: Tensor) -> Explanation:
        """Normalised images [B, 3, H, W] -> maps."""
        ...
