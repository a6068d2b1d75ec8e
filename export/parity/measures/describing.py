"""Several models' descriptors of the same images, each image decoded once for all models that see it alike.

Descriptors are taken as they come: that one is not finite is a finding of parity's, not the end of it.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from geodtr.runtime.embed.pipeline import BATCH_SIZE, batches_ahead
from geodtr.runtime.errors import ImageError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import BranchSpec, Descriptors, Embedder, EmbedderPair, Images
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.evaluation.evaluate import DescriptorPair, load_row, rows_without, select_rows


def describe(
    models: Sequence[EmbedderPair], pair_set: PairSet, name: str, *, track: Track = untracked
) -> list[DescriptorPair]:
    """Embed every panorama and every tile with each model; `name` is whose they are, for `track`.

    Images that cannot be read as one of the models takes them are left out for all, with their pairs.
    """
    bad: dict[Path, Skipped] = {}
    paths: dict[Branch, list[Path]] = {"ground": pair_set.paths("ground"), "aerial": pair_set.references}
    rows_of = {
        branch: _describe_branch(
            [model[branch] for model in models], pair_set, paths[branch], bad, f"{name}: {branch} images", track
        )
        for branch in BRANCHES
    }
    scorers = [model.ground.spec.scorer for model in models]
    choosing = [frozenset(branch for branch in BRANCHES if model[branch].spec.chooses) for model in models]
    if not bad:
        return [
            DescriptorPair(pair_set, *rows)
            for rows in zip(rows_of["ground"], rows_of["aerial"], scorers, choosing, strict=True)
        ]
    left = pair_set.without(bad.values())
    kept = rows_without(bad, pair_set)
    ground = [rows[kept] for rows in rows_of["ground"]]
    aerial = [select_rows(rows, paths["aerial"], left.references) for rows in rows_of["aerial"]]
    return [DescriptorPair(left, *rows) for rows in zip(ground, aerial, scorers, choosing, strict=True)]


def _describe_branch(
    embedders: Sequence[Embedder],
    pair_set: PairSet,
    paths: Sequence[Path],
    bad: dict[Path, Skipped],
    description: str,
    track: Track,
) -> list[Descriptors]:
    """A row for each path from each embedder; unreadable images are added to `bad`, and their rows are zero."""
    descriptors = [np.zeros((len(paths), embedder.spec.descriptor_size), np.float32) for embedder in embedders]

    def skip(row: int, error: ImageError) -> None:
        bad[paths[row]] = Skipped(paths[row], str(error))

    for geometry in dict.fromkeys(embedder.spec.preprocessing.geometry for embedder in embedders):
        alike = [index for index, each in enumerate(embedders) if each.spec.preprocessing.geometry == geometry]

        def load(row: int, spec: BranchSpec = embedders[alike[0]].spec) -> Images:
            return load_row(pair_set, row, spec)

        rows = range(len(paths))
        batches = batches_ahead(
            rows, load, BATCH_SIZE, count=len(paths), description=description, on_error=skip, track=track
        )
        with closing(batches):
            for batch, pixels in batches:
                for index in alike:
                    descriptors[index][batch] = embedders[index].embed(pixels)
    return descriptors
