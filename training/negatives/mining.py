"""Batches of hard negatives by the descriptors that training itself has computed, without another pass over the images.

Works on descriptors and tile numbers. Source: Zhu et al., "TransGeo", CVPR 2022, and its release, whose batches
`mined_order` repeats, from the same draws.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float32] | NDArray[np.float64]

_LARGEST_POOL, _CANDIDATES = 40_000, 100
_BLOCK = 512


@dataclass
class LastDescriptors:
    """Each pair's descriptors when it was last in a batch, float32 [N, D], zero before; part of a run's state.

    `order` int64 has the pairs of `epoch` in their order: descriptors change during the epoch that they have made.
    """

    ground: NDArray[np.float32]
    aerial: NDArray[np.float32]
    order: NDArray[np.int64]
    epoch: int = -1

    @classmethod
    def empty(cls, pairs: int, descriptor_size: int) -> "LastDescriptors":
        zeros = np.zeros((2, pairs, descriptor_size), np.float32)
        return cls(zeros[0], zeros[1], np.empty(0, np.int64))

    def store(self, rows: Tensor, ground: Tensor, aerial: Tensor) -> None:
        """Replace the descriptors of the pairs `rows`, [B] and [B, D]."""
        self.ground[rows.numpy()] = ground.cpu().numpy()
        self.aerial[rows.numpy()] = aerial.cpu().numpy()


def shuffled(pairs: int, batch_size: int, generator: random.Random) -> list[int]:
    """The order of an epoch without descriptors: of those pairs alone that fill batches, as in the release."""
    order = list(range(pairs // batch_size * batch_size))
    generator.shuffle(order)
    return order


def mined_order(
    ground: Rows, aerial: Rows, tiles: Sequence[int], batch_size: int, generator: random.Random
) -> list[int]:
    """The pairs of an epoch in their order: half of each batch is random, and each has a similar partner in it.

    Parameters
    ----------
    ground, aerial
        Unit rows [N, D], or zero for pairs that were never seen.
    tiles
        The tile of each pair. No partner has the tile of another pair in its batch.
    batch_size
        Even.
    """
    half = batch_size // 2
    leaders = shuffled(len(ground), batch_size, generator)
    leaders = leaders[: len(leaders) // 2]
    pool = np.array(generator.sample(range(len(aerial)), min(_LARGEST_POOL, len(aerial))))
    candidates = dict(zip(leaders, _most_similar(ground[leaders], aerial[pool], pool), strict=True))
    order = list[int]()
    for start in range(0, len(leaders), half):
        chunk = leaders[start : start + half]
        taken, partners = {tiles[pair] for pair in chunk}, list[int]()
        for pair in chunk:
            free = any(tiles[other] not in taken for other in candidates[pair])
            # The release draws for ever where there is none, as in tiny sets.
            choices = candidates[pair] if free else [each for each in range(len(tiles)) if tiles[each] not in taken]
            partner = generator.choice(choices) if choices else pair
            while choices and tiles[partner] in taken:
                partner = generator.choice(choices)
            taken.add(tiles[partner])
            partners.append(partner)
        order += chunk + partners
    return order


def _most_similar(queries: Rows, references: Rows, names: NDArray[np.int64]) -> list[list[int]]:
    """For each query, the `names` of the most similar references, the most similar one last."""
    ranked, count = list[list[int]](), min(_CANDIDATES, len(names))
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ references.T
        nearest = np.sort(np.argpartition(similarity, -count, axis=1)[:, -count:], axis=1)
        rising = np.argsort(np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
        ranked += names[np.take_along_axis(nearest, rising, axis=1)].tolist()
    return ranked
