"""Evaluation: recall of any pair of embedders on a set of pairs. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geodtr.runtime.embed.pipeline import BATCH_SIZE, embed_files
from geodtr.runtime.errors import ImageError
from geodtr.runtime.names import Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Ranking, Recall, rank, recall
from geodtr.runtime.spec import Correlation, Descriptors, EmbedderPair
from geodtr.training.data.pair_set import PairSet, Skipped

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
    """Embed every panorama and every tile once. Unreadable images are left out with their pairs."""
    bad: dict[Path, Skipped] = {}

    def skip(path: Path, error: ImageError) -> None:
        bad[path] = Skipped(path, str(error))

    ground_paths, aerial_paths = pair_set.paths("ground"), pair_set.references
    ground = embed_files(
        embedders.ground, ground_paths, batch_size=batch_size, description="Ground images", on_error=skip, track=track
    )
    aerial = embed_files(
        embedders.aerial, aerial_paths, batch_size=batch_size, description="Aerial images", on_error=skip, track=track
    )
    if not bad:
        return DescriptorPair(pair_set, ground, aerial, embedders.ground.spec.scorer)
    left = pair_set.without(bad.values())
    return DescriptorPair(
        left,
        select_rows(ground, [path for path in ground_paths if path not in bad], left.paths("ground")),
        select_rows(aerial, [path for path in aerial_paths if path not in bad], left.references),
        embedders.ground.spec.scorer,
    )


def select_rows(descriptors: Descriptors, paths: list[Path], wanted: list[Path]) -> Descriptors:
    """The rows for `wanted` paths; `descriptors` has one row for each of `paths`."""
    row = {path: index for index, path in enumerate(paths)}
    return descriptors[np.array([row[path] for path in wanted], np.int64)]


def evaluate(embedders: EmbedderPair, pair_set: PairSet, *, track: Track = untracked) -> Recall:
    """Recall of ground queries among the set's aerial tiles."""
    return recall(embed_pairs(embedders, pair_set, track=track).ranking())
