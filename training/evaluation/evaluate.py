"""Evaluation: recall of any pair of embedders on a set of pairs. Needs no torch."""

from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from geodtr.runtime.embed.pipeline import OnError, batches_ahead, check_finite, stop
from geodtr.runtime.errors import ConfigError, ImageError
from geodtr.runtime.images.intake import doubt_of
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.matches import Matches
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import AveragePrecision, Ranking, Recall, average_precision, rank, recall
from geodtr.runtime.search.exact import Hits, search, search_correlated
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.spec import BranchSpec, Correlation, Descriptors, Embedder, EmbedderPair, Images
from geodtr.training.data.counting import Counting, countings
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.views import load_query

_SAMPLE = 16


@dataclass(frozen=True, slots=True)
class DescriptorPair:
    """Descriptors of a pair set: `ground` float32 [pairs, D], `aerial` float32 [references, D].

    `scorer` compares them. `pair_set` holds the readable pairs; `pair_set.skipped` holds the unreadable images.
    `chooses` names the branches whose network chooses the patches that it sees.
    """

    pair_set: PairSet
    ground: Descriptors
    aerial: Descriptors
    scorer: Correlation | None
    chooses: frozenset[Branch]

    @classmethod
    def of(
        cls, embedders: EmbedderPair, pair_set: PairSet, ground: Descriptors, aerial: Descriptors
    ) -> "DescriptorPair":
        """What the two embedders gave for all rows of `pair_set`."""
        chooses = frozenset(branch for branch in BRANCHES if embedders[branch].spec.chooses)
        return cls(pair_set, ground, aerial, embedders.ground.spec.scorer, chooses)

    def __getitem__(self, branch: Branch) -> Descriptors:
        return self.ground if branch == "ground" else self.aerial

    def without(self, bad: Mapping[Path, Skipped]) -> "DescriptorPair":
        """The rows of the set without the pairs that use a file in `bad`."""
        if not bad:
            return self
        left = self.pair_set.without(bad.values())
        return replace(
            self,
            pair_set=left,
            ground=self.ground[self.pair_set.rows_without(bad)],
            aerial=self.aerial[[self.pair_set.tile_rows[path] for path in left.references]],
        )

    def ranking(self) -> Ranking:
        """The ranking of the published recall, as `countings` has it first."""
        return self.rank(countings(self.pair_set)[0])

    def rank(self, counting: Counting) -> Ranking:
        """The rank of each query's nearest right reference, as `counting` counts them."""
        return rank(*self.ranked(counting))

    def average_precision(self, counting: Counting) -> AveragePrecision:
        """Average precision of the same rankings."""
        return average_precision(*self.ranked(counting))

    def nearest(self, counting: Counting, queries: Descriptors, top: int, among: Rows | None = None) -> Hits:
        """The `top` nearest references of `queries`, as the model compares them; `among` are rows, rising."""
        references = self["aerial" if counting.queries == "ground" else "ground"]
        if self.scorer is not None:
            return search_correlated(queries, references, top, self.scorer, among)
        return search(queries, references, top, among)

    def ranked(
        self, counting: Counting
    ) -> tuple[Descriptors, Descriptors, Matches, Matches | None, Correlation | None]:
        """The arguments of `recall.rank`. Raises ConfigError where the model cannot be asked so."""
        if counting.queries == "aerial" and self.scorer is not None:
            raise ConfigError(
                f"This model compares by correlation, which looks up ground images among tiles; {self.pair_set.name} "
                "asks for the reverse. Choose a split from drone to satellite."
            )
        references: Branch = "aerial" if counting.queries == "ground" else "ground"
        queries = self[counting.queries][counting.rows]
        return queries, self[references], counting.truth, counting.ignored, self.scorer


def embed_pairs(embedders: EmbedderPair, pair_set: PairSet, *, track: Track = untracked) -> DescriptorPair:
    """Embed what is seen of every panorama, and every tile once. Unreadable images are left out with their pairs."""
    bad: dict[Path, Skipped] = {}

    def skip(path: Path, error: ImageError) -> None:
        bad[path] = Skipped(path, str(error))

    ground, aerial = (embed_branch(embedders[branch], pair_set, on_error=skip, track=track) for branch in BRANCHES)
    return DescriptorPair.of(embedders, pair_set, ground, aerial).without(bad)


def embed_branch(
    embedder: Embedder, pair_set: PairSet, *, on_error: OnError = stop, track: Track = untracked
) -> Descriptors:
    """Descriptors of what is seen of each panorama, or of every tile, float32 [N, D]; a row that `on_error` skipped is
    zero.
    """
    spec, files = embedder.spec, pair_set.rows(embedder.spec.branch)
    descriptors = np.zeros((len(files), spec.descriptor_size), np.float32)
    description = f"{spec.branch.capitalize()} images"
    with closing(row_batches(pair_set, spec, description, on_error=on_error, track=track)) as batches:
        for rows, pixels in batches:
            descriptors[rows] = embedder.embed(pixels)
            check_finite(descriptors[rows], [str(files[row]) for row in rows])
    return descriptors


def row_batches(
    pair_set: PairSet,
    spec: BranchSpec,
    description: str,
    *,
    on_error: OnError = stop,
    track: Track = untracked,
) -> Generator[tuple[list[int], Images], None, None]:
    """Numbers of a branch's rows with what it gets of them, uint8 [B, height, width, 3]; threads load ahead."""
    files = pair_set.rows(spec.branch)

    def skip(row: int, error: ImageError) -> None:
        on_error(files[row], error)

    load = partial(load_row, pair_set, spec=spec)
    return batches_ahead(
        range(len(files)),
        load,
        count=len(files),
        description=description,
        on_error=skip,
        track=track,
    )


def load_row(pair_set: PairSet, row: int, spec: BranchSpec) -> Images:
    """What a branch gets of a row of its descriptors, uint8 RGB [height, width, 3]. Raises ImageError naming a file."""
    if spec.branch == "aerial":
        return load_image(pair_set.references[row], spec.preprocessing)
    pair = pair_set.pairs[row]
    return load_query(pair.ground, pair.view, spec.preprocessing, spec.scorer)


def load_first(pair_set: PairSet, count: int, spec: BranchSpec) -> Images:
    """What a branch gets of at most the first `count` rows, [B, height, width, 3]. Raises as `load_row` does."""
    there = min(count, len(pair_set.rows(spec.branch)))
    return np.stack([load_row(pair_set, row, spec) for row in range(there)])


def doubt(pair_set: PairSet, spec: BranchSpec) -> str | None:
    """Why the ground images, by the first that can be read, are none that the model was trained on. None where nothing
    speaks against them, or where the views of panoramas are stated.
    """
    if not pair_set.views.as_they_are:
        return None
    for pair in pair_set.pairs[:_SAMPLE]:
        with suppress(ImageError):  # reported when it is embedded
            return doubt_of(pair.ground, spec.preprocessing.imagery)
    return None


def evaluate(embedders: EmbedderPair, pair_set: PairSet, *, track: Track = untracked) -> Recall:
    """Recall of the set's queries, as papers count it."""
    return recall(embed_pairs(embedders, pair_set, track=track).ranking())
