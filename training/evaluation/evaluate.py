"""Evaluation: recall of any pair of embedders on a set of pairs. Needs no torch."""

from collections.abc import Container
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.embed.pipeline import BATCH_SIZE, OnError, batches_ahead, check_finite, embed_files, stop
from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Ranking, Recall, rank, recall
from geodtr.runtime.spec import BranchSpec, Correlation, Descriptors, Embedder, EmbedderPair, Images
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.views import load_query

NEAR = 5.0
"""Metres within which CVACT_test counts a tile as correct. Source: Liu and Li (OriCNN), CVPR 2019."""


@dataclass(frozen=True, slots=True)
class DescriptorPair:
    """Descriptors of a pair set: `ground` float32 [pairs, D], `aerial` float32 [references, D].

    `scorer` compares them. `pair_set` holds the readable pairs; `pair_set.skipped` holds the unreadable images.
    `chooses` names the branches whose network chooses the patches that it sees.
    """

    pair_set: PairSet
    ground: Descriptors
    aerial: Descriptors
    scorer: Correlation | None = None
    chooses: frozenset[Branch] = frozenset()

    def __getitem__(self, branch: Branch) -> Descriptors:
        return self.ground if branch == "ground" else self.aerial

    def ranking(self) -> Ranking:
        """The rank of each panorama's tile among all tiles, without semi-positives."""
        return rank(self.ground, self.aerial, self.pair_set.truth, self.pair_set.ignored, self.scorer)

    def ranking_within(self, metres: float) -> Ranking | None:
        """The rank of the best tile within `metres` of each panorama; None for a set without positions."""
        if any(pair.utm is None for pair in self.pair_set.pairs):
            return None
        return rank(self.ground, self.aerial, self.pair_set.within(metres), self.pair_set.ignored, self.scorer)


def embed_pairs(
    embedders: EmbedderPair, pair_set: PairSet, *, batch_size: int = BATCH_SIZE, track: Track = untracked
) -> DescriptorPair:
    """Embed what is seen of every panorama, and every tile once. Unreadable images are left out with their pairs."""
    bad: dict[Path, Skipped] = {}

    def skip(path: Path, error: ImageError) -> None:
        bad[path] = Skipped(path, str(error))

    ground = embed_ground(embedders.ground, pair_set, batch_size=batch_size, on_error=skip, track=track)
    aerial_paths = pair_set.references
    aerial = embed_files(
        embedders.aerial, aerial_paths, batch_size=batch_size, description="Aerial images", on_error=skip, track=track
    )
    if not bad:
        return DescriptorPair(pair_set, ground, aerial, embedders.ground.spec.scorer)
    left = pair_set.without(bad.values())
    return DescriptorPair(
        left,
        ground[rows_without(bad, pair_set)],
        select_rows(aerial, [path for path in aerial_paths if path not in bad], left.references),
        embedders.ground.spec.scorer,
    )


def embed_ground(
    embedder: Embedder,
    pair_set: PairSet,
    *,
    batch_size: int = BATCH_SIZE,
    on_error: OnError = stop,
    track: Track = untracked,
) -> Descriptors:
    """Descriptors of what is seen of each panorama, float32 [pairs, D]; rows that `on_error` skipped mean nothing."""
    count = len(pair_set)
    descriptors = np.zeros((count, embedder.spec.descriptor_size), np.float32)

    def skip(row: int, error: ImageError) -> None:
        on_error(pair_set.pairs[row].ground, error)

    load = partial(load_row, pair_set, spec=embedder.spec)
    batches = batches_ahead(
        range(count), load, batch_size, count=count, description="Ground images", on_error=skip, track=track
    )
    with closing(batches):
        for rows, pixels in batches:
            descriptors[rows] = embedder.embed(pixels)
            check_finite(descriptors[rows], [str(pair_set.pairs[row].ground) for row in rows])
    return descriptors


def load_row(pair_set: PairSet, row: int, spec: BranchSpec) -> Images:
    """What a branch gets of a row of its descriptors, uint8 RGB [height, width, 3]. Raises ImageError naming a file."""
    if spec.branch == "aerial":
        return load_image(pair_set.references[row], spec.preprocessing)
    pair = pair_set.pairs[row]
    return load_query(pair.ground, pair.view, spec.preprocessing, spec.scorer)


def load_first(pair_set: PairSet, count: int, spec: BranchSpec) -> Images:
    """What a branch gets of at most the first `count` rows, [B, height, width, 3]. Raises as `load_row` does."""
    there = len(pair_set) if spec.branch == "ground" else len(pair_set.references)
    return np.stack([load_row(pair_set, row, spec) for row in range(min(count, there))])


def rows_without(bad: Container[Path], pair_set: PairSet) -> NDArray[np.int64]:
    """The rows of the pairs that `PairSet.without` leaves."""
    rows = [row for row, pair in enumerate(pair_set.pairs) if pair.ground not in bad and pair.aerial not in bad]
    return np.array(rows, np.int64)


def select_rows(descriptors: Descriptors, paths: list[Path], wanted: list[Path]) -> Descriptors:
    """The rows for `wanted` paths; `descriptors` has one row for each of `paths`."""
    row = {path: index for index, path in enumerate(paths)}
    return descriptors[np.array([row[path] for path in wanted], np.int64)]


def evaluate(embedders: EmbedderPair, pair_set: PairSet, *, track: Track = untracked) -> Recall:
    """Recall of ground queries among the set's aerial tiles."""
    return recall(embed_pairs(embedders, pair_set, track=track).ranking())
