"""Pixels of pairs for training: decoded once if they fit into memory, else in every epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geodtr.runtime.embed.pipeline import decode_ahead
from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Images, Preprocessing
from geodtr.training.augment.views import DrawnViews
from geodtr.training.data.pair_set import PairSet, Skipped

_AHEAD = 64


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pixels of B pairs, uint8 [B, H, W, 3] per branch, and the tile number of each pair, int64 [B].

    `views`: what is seen of each ground image, a full panorama; None for all of it.
    """

    ground: Tensor
    aerial: Tensor
    tiles: Tensor
    views: DrawnViews | None = None


class PairImages:
    """The preprocessed pixels of a pair set.

    A pair with an unreadable image is left out, and the image is added to `pair_set.skipped`. If the images do not fit
    into `cache_bytes`, they are read while training: the previous pair then replaces the unreadable one, so that every
    epoch has the same number of steps, and `on_skip` is called. `pinned`: use page-locked memory, which a GPU copies
    asynchronously.
    """

    def __init__(
        self,
        pair_set: PairSet,
        preprocessing: dict[Branch, Preprocessing],
        *,
        cache_bytes: float,
        pinned: bool = False,
        track: Track = untracked,
        on_skip: Callable[[Skipped], None] = lambda _skipped: None,
    ) -> None:
        self._preprocessing, self._pinned = preprocessing, pinned
        self._on_skip = on_skip
        self._skipped = set[Path]()
        self._held: dict[Branch, Tensor] | None = None
        bytes_needed = sum(prod(how.shape) for how in preprocessing.values()) * len(pair_set)
        if bytes_needed <= cache_bytes:
            pair_set, self._held = self._read_all(pair_set, track)
        self.pair_set = pair_set
        self._tiles = torch.from_numpy(pair_set.places)

    def __len__(self) -> int:
        return len(self.pair_set)

    def batches(self, batches: Sequence[Tensor], views: DrawnViews | None = None) -> Iterator[PairBatch]:
        """The pixels of each of `batches`, int64 [B] row numbers, with the `views` of these of all pairs."""
        if self._held is not None:
            for rows in batches:
                ground, aerial = (
                    torch.index_select(self._held[branch], 0, rows, out=self._empty(branch, len(rows)))
                    for branch in BRANCHES
                )
                yield PairBatch(ground, aerial, self._tiles[rows], views and views.rows(rows))
            return
        yield from self._stream(batches, views)

    def _stream(self, batches: Sequence[Tensor], views: DrawnViews | None) -> Iterator[PairBatch]:
        order = [row for rows in batches for row in rows.tolist()]
        pairs = _filled(order, *(self._decode(branch, order) for branch in BRANCHES))
        for rows in batches:
            numbers, *images_of = zip(*islice(pairs, len(rows)), strict=True)
            ground, aerial = (self._empty(branch, len(rows)) for branch in BRANCHES)
            for images, pixels in zip(images_of, (ground, aerial), strict=True):
                np.stack(images, out=pixels.numpy())
            read = torch.tensor(numbers)
            yield PairBatch(ground, aerial, self._tiles[read], views and views.rows(read))

    def _empty(self, branch: Branch, count: int) -> Tensor:
        """Allocated for each batch: PyTorch reuses pinned memory once the GPU has read it."""
        how = self._preprocessing[branch]
        return torch.empty((count, *how.shape), dtype=torch.uint8, pin_memory=self._pinned)

    def _decode(self, branch: Branch, rows: Sequence[int]) -> Iterator[Images | None]:
        """The image of each row; None if it cannot be read."""
        of_row = self.pair_set.paths(branch)
        paths = [of_row[row] for row in rows]
        for path, image in zip(paths, decode_ahead(paths, self._preprocessing[branch], _AHEAD), strict=True):
            if isinstance(image, ImageError):
                if path not in self._skipped:
                    self._skipped.add(path)
                    self._on_skip(Skipped(path, str(image)))
                yield None
            else:
                yield image

    def _read_all(self, pair_set: PairSet, track: Track) -> tuple[PairSet, dict[Branch, Tensor]]:
        """The readable pairs and their pixels, uint8 [N, H, W, 3] per branch."""
        held, bad = dict[Branch, Tensor](), dict[Path, Skipped]()
        for branch in BRANCHES:
            how, paths = self._preprocessing[branch], pair_set.paths(branch)
            images = np.empty((len(paths), *how.shape), np.uint8)
            decoded = decode_ahead(paths, how, _AHEAD)
            for row, image in enumerate(track(decoded, f"Reading {branch} images", len(paths))):
                if isinstance(image, ImageError):
                    bad[paths[row]] = Skipped(paths[row], str(image))
                else:
                    images[row] = image
            held[branch] = torch.from_numpy(images)
        if not bad:
            return pair_set, held
        good = torch.from_numpy(pair_set.rows_without(bad))
        return pair_set.without(bad.values()), {branch: images[good] for branch, images in held.items()}


def _filled(
    rows: Sequence[int], ground: Iterator[Images | None], aerial: Iterator[Images | None]
) -> Iterator[tuple[int, Images, Images]]:
    """Each row with its pixels; the last readable row, or at the start the first one, replaces an unreadable row."""
    last, owed = None, 0
    for entry in zip(rows, ground, aerial, strict=True):
        row, below, above = entry
        if below is not None and above is not None:
            last = (row, below, above)
            yield from [last] * owed
            owed = 0
        if last is None:
            owed += 1
        else:
            yield last
    if last is None:
        raise DataError(f"None of {len(rows)} training pairs could be read: geodtr-export data check SPEC")
