"""A linear layer in place of principal directions, trained so that the two images of a place find each other.

Knows rows of numbers. Needs PyTorch.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from geodtr.export.projection import Projection
from geodtr.runtime.matches import Matches
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors

_EPOCHS, _BATCH, _TEMPERATURE = 10, 256, 0.05
_STEP = 1 / 150
"""Adam's learning rate, as a share of the root mean square of the weights: only directions count, not their size."""


def train_layer(
    start: Projection,
    rows: Mapping[Branch, Descriptors],
    own: NDArray[np.int64],
    right: Matches,
    *,
    track: Track = untracked,
) -> Projection:
    """The projection that training makes of `start`, by InfoNCE in both directions (van den Oord et al., 2018).

    `rows`: unit rows, float32 [Q, D] and [T, D]. `own`: int64 [Q], the tile of each ground row. Of the tiles in a
    batch, all are wrong for a ground row but its own and those that `right` names. On one machine, the same arguments
    give the same projection.
    """
    random = torch.Generator().manual_seed(0)
    weights = torch.tensor(start.weights, requires_grad=True)
    bias = {branch: torch.tensor(start.bias[branch], requires_grad=True) for branch in BRANCHES}
    optimiser = torch.optim.Adam([weights, *bias.values()], lr=_STEP * float(weights.detach().square().mean().sqrt()))
    tiles = len(rows["aerial"])
    known = np.unique(right.query * tiles + right.reference)
    for _ in track(range(_EPOCHS), "Training a linear layer", _EPOCHS):
        for batch in torch.split(torch.randperm(len(own), generator=random), _BATCH):
            queries = batch.numpy()
            seen = {"ground": rows["ground"][queries], "aerial": rows["aerial"][own[queries]]}
            ground, aerial = (
                F.normalize(torch.from_numpy(seen[branch]) @ weights + bias[branch], dim=1) for branch in BRANCHES
            )
            cells = queries[:, None] * tiles + own[queries]
            # Of the sorted numbers: `np.isin` would sort them again for each batch.
            also_right = known[np.searchsorted(known, cells).clip(max=len(known) - 1)] == cells
            np.fill_diagonal(also_right, False)
            scores = (ground @ aerial.T / _TEMPERATURE).masked_fill(torch.from_numpy(also_right), -torch.inf)
            pair = torch.arange(len(batch))
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(scores, pair) + F.cross_entropy(scores.T, pair))
            optimiser.step()
    return Projection(weights.detach().numpy(), {branch: bias[branch].detach().numpy() for branch in BRANCHES})
