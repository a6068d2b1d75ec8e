"""Which pairs form a batch: random ones, or hard negatives of each other.

Every epoch has as many batches. Lists of similar pairs are a file in the run's folder, made from the weights at the end
of an epoch, so that a resumed run draws the batches that it would have drawn.
"""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.files import write_bytes
from geodtr.runtime.spec import Descriptors
from geodtr.training.augmented import seen
from geodtr.training.data.pair_set import PairSet
from geodtr.training.models.embedder import embedders
from geodtr.training.negatives.mining import LastDescriptors, mined_order, shuffled
from geodtr.training.negatives.neighbours import (
    Neighbours,
    fill_batches,
    most_similar,
    nearest_in_space,
    nearest_on_earth,
)
from geodtr.training.pair_images import PairImages
from geodtr.training.run_files import NEIGHBOURS
from geodtr.training.seeding import Purpose, generator, seed_of
from geodtr.training.trainer import Trainer

_EMBED = 64


class PairOrder:
    """The batches of each epoch.

    Raises ConfigError when neighbours on the map are asked for and the pairs have no positions.
    """

    def __init__(self, out: Path, trainer: Trainer, images: PairImages) -> None:
        self._file, self._trainer, self._images = out / NEIGHBOURS, trainer, images
        self._recipe = trainer.config.recipe
        self.per_epoch = len(images) // self._recipe.batch_size
        # Numbers without gaps: `places` count tiles of no pair, too.
        _, first, inverse = np.unique(images.pair_set.places, return_index=True, return_inverse=True)
        self._tiles: NDArray[np.int64] = inverse.astype(np.int64)
        self._nearby: Neighbours | None = None
        if self._recipe.negatives == "mined":
            size = trainer.model.specs["ground"].descriptor_size
            trainer.memory = LastDescriptors.empty(len(images), size)
        elif self._recipe.negatives != "random":
            self._nearby = _nearby(images.pair_set, first, self._recipe.neighbours)
            if self._nearby is None and self._recipe.negatives == "nearby":
                raise ConfigError(
                    f'recipe.negatives is "nearby", but not every pair of {images.pair_set.name} has a position. Set '
                    'it to "similar" or "random".'
                )

    def batches(self, epoch: int) -> Sequence[Tensor]:
        """Row numbers of pairs, int64 [B], for each step of `epoch`. Called when the epoch begins or is resumed."""
        recipe = self._recipe
        count, size = self.per_epoch, recipe.batch_size
        if recipe.negatives == "random":
            order = torch.randperm(len(self._images), generator=generator(recipe.seed, Purpose.ORDER, epoch))
            return torch.split(order[: count * size], size)
        drawn = random.Random(seed_of(recipe.seed, Purpose.ORDER, epoch))
        memory = self._trainer.memory
        if memory is not None:
            if memory.epoch != epoch:  # else it is of a run that is resumed within the epoch
                mined = (
                    mined_order(memory.ground, memory.aerial, self._tiles.tolist(), size, drawn)
                    if epoch
                    else shuffled(len(self._images), size, drawn)
                )
                memory.epoch, memory.order = epoch, np.array(mined, np.int64)
            return torch.split(torch.from_numpy(memory.order), size)
        neighbours = self._neighbours(epoch)
        filled = fill_batches(self._tiles.tolist(), neighbours, size, recipe.selected_neighbours, drawn)
        # The release drops the pairs that are left over. Here an epoch has a fixed number of steps.
        rows = [row for batch in filled for row in batch]
        left_over = sorted(set(range(len(self._images))) - set(rows))
        drawn.shuffle(left_over)
        return torch.split(torch.tensor([*rows, *left_over][: count * size]), size)

    def _neighbours(self, epoch: int) -> Neighbours | None:
        """On the map until descriptors have been compared for the first time."""
        made_after = epoch // self._recipe.compare_every * self._recipe.compare_every
        if self._recipe.negatives == "nearby" or not made_after:
            return self._nearby
        stored = self._read()
        self._trainer.ranks.wait()  # until all have read: what rank 0 writes then would change their answer
        if stored is None or stored[0] != made_after:
            if epoch != made_after or self._trainer.step != epoch * self.per_epoch:
                raise CheckpointError(
                    f"{self._file} does not hold the lists that epoch {epoch + 1} began with. Restore it, or train "
                    "again with another --out."
                )
            if self._trainer.ranks.is_rank_zero:
                write_bytes(self._file, _encode(made_after, most_similar(*self._embed(epoch), self._recipe.neighbours)))
            self._trainer.ranks.wait()
            stored = self._read()
        if stored is None or len(stored[1]) != self._tiles.max() + 1:
            raise CheckpointError(f"{self._file} does not belong to these pairs. Train again with another --out.")
        return stored[1]

    def _embed(self, epoch: int) -> tuple[Descriptors, Descriptors, NDArray[np.int64]]:
        """Queries as `epoch` sees them, the reference of each place, and the place of each query. A place with several
        tiles has their mean for reference.
        """
        model, config = self._trainer.model, self._trainer.config
        views = self._trainer.views_of(len(self._images), epoch)
        pair, tiles = embedders(model), self._images.pair_set.tiles
        queries, of_tile = list[Descriptors](), dict[int, Descriptors]()
        rows = torch.split(torch.arange(len(self._images)), _EMBED)
        for numbers, batch in zip(rows, self._images.batches(rows, views), strict=True):
            queries.append(pair.ground.embed(seen(config, batch).numpy()))
            of_tile.update(zip(tiles[numbers.numpy()].tolist(), pair.aerial.embed(batch.aerial.numpy()), strict=True))
        model.train()
        place_of = dict(zip(tiles.tolist(), self._tiles.tolist(), strict=True))
        references = np.zeros((self._tiles.max() + 1, queries[0].shape[1]), np.float32)
        for tile, descriptor in of_tile.items():
            references[place_of[tile]] += descriptor
        references /= np.maximum(np.linalg.norm(references, axis=1, keepdims=True), np.float32(1e-12))
        return np.concatenate(queries), references, self._tiles

    def _read(self) -> tuple[int, Neighbours] | None:
        if not self._file.is_file():
            return None
        try:
            with np.load(self._file, allow_pickle=False) as arrays:
                return int(arrays["epochs"]), np.asarray(arrays["neighbours"], np.int64)
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise CheckpointError(f"{self._file} cannot be read ({error}). Train again with another --out.") from None


def _encode(epochs: int, neighbours: Neighbours) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, epochs=epochs, neighbours=neighbours.astype(np.int32))
    return buffer.getvalue()


def _nearby(pair_set: PairSet, rows: NDArray[np.int64], count: int) -> Neighbours | None:
    """Of the tile of each pair in `rows`; None unless all have positions."""
    pairs = [pair_set.pairs[row] for row in rows.tolist()]
    utm = [pair.utm for pair in pairs if pair.utm is not None]
    if len(utm) == len(pairs):
        return nearest_in_space(np.array(utm), count)
    degrees = [(pair.lat, pair.lon) for pair in pairs if pair.lat is not None and pair.lon is not None]
    if len(degrees) < len(pairs):
        return None
    lat, lon = np.array(degrees, np.float64).T
    return nearest_on_earth(lat, lon, count)
