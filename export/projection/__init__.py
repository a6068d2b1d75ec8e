"""The projection that makes descriptors shorter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Descriptors
from geodtr.training.evaluation.evaluate import DescriptorPair

SHORTEST = 1e-12
"""Least length that a projected row is divided by, as PyTorch's `normalize` has it."""
BLOCK = 4096
"""Rows that are computed at once in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Makes descriptors of N numbers from descriptors x of D: x @ weights + bias, divided by its length.

    `weights`: float32 [D, N], the same for both branches. `bias`: float32 [N] by branch; without training, it takes the
    branch's mean away.
    """

    weights: NDArray[np.float32]
    bias: Mapping[Branch, NDArray[np.float32]]

    @property
    def size(self) -> int:
        """Numbers of a projected descriptor."""
        return int(self.weights.shape[1])

    def project(self, branch: Branch, rows: Descriptors) -> Descriptors:
        """Unit rows, float32 [K, D] -> unit rows, float32 [K, N]; computed in float64."""
        weights, bias = self.weights.astype(np.float64), self.bias[branch].astype(np.float64)
        projected = np.empty((len(rows), self.size), np.float32)
        for start in range(0, len(rows), BLOCK):
            products = rows[start : start + BLOCK].astype(np.float64) @ weights + bias
            lengths = np.linalg.norm(products, axis=1, keepdims=True)
            projected[start : start + BLOCK] = products / np.maximum(lengths, SHORTEST)
        return projected

    def project_pairs(self, pairs: DescriptorPair) -> DescriptorPair:
        """Both branches' rows, projected."""
        ground, aerial = (self.project(branch, pairs[branch]) for branch in BRANCHES)
        return replace(pairs, ground=ground, aerial=aerial)

    def embedding_id(self, of: str) -> str:
        """The identifier of the space that this makes of the space `of`: another projection, another space."""
        digest = sha256(of.encode())
        for numbers in (self.weights, *(self.bias[branch] for branch in BRANCHES)):
            digest.update(repr(numbers.shape).encode())
            digest.update(np.ascontiguousarray(numbers, "<f4").tobytes())
        return digest.hexdigest()[:16]
