"""Batches of preprocessed pairs for training, decoded once where memory allows, and anew each epoch where not."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.pipeline import load_batches
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Images, Preprocessing
from geodtr.training.data.pair_set import PairSet

MEMORY_LIMIT = 4 << 30
_READ_AT_ONCE = 32


class PairImages:
    """The pixels of a pair set, each branch preprocessed its own way: uint8 [N, H, W, 3]."""

    def __init__(self, pair_set: PairSet, preprocessing: dict[Branch, Preprocessing], track: Track = untracked) -> None:
        self._pair_set = pair_set
        self._preprocessing = preprocessing
        size = sum(how.height * how.width * 3 for how in preprocessing.values()) * len(pair_set)
        self._held = {branch: self._read(branch, track) for branch in BRANCHES} if size <= MEMORY_LIMIT else None

    def __len__(self) -> int:
        return len(self._pair_set)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Ground and aerial pixels [B, H, W, 3] of the pairs in `order`; a last short batch is left out."""
        rows = order[: len(order) // batch_size * batch_size]
        if self._held is not None:
            for chosen in torch.split(rows, batch_size):
                yield self._held["ground"][chosen], self._held["aerial"][chosen]
            return
        streams = (self._stream(branch, rows, batch_size) for branch in BRANCHES)
        for ground, aerial in zip(*streams, strict=True):
            yield torch.from_numpy(ground), torch.from_numpy(aerial)

    def _stream(self, branch: Branch, rows: Tensor, batch_size: int) -> Iterator[Images]:
        paths = self._pair_set.paths(branch)
        return load_batches([paths[row] for row in rows.tolist()], self._preprocessing[branch], batch_size)

    def _read(self, branch: Branch, track: Track) -> Tensor:
        batches = load_batches(self._pair_set.paths(branch), self._preprocessing[branch], _READ_AT_ONCE)
        steps = -(-len(self) // _READ_AT_ONCE)
        return torch.from_numpy(np.concatenate(list(track(batches, f"Reading {branch} images", steps))))
