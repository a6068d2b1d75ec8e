"""Several models' descriptors of the same images, each image decoded once for all models that see it alike.

Descriptors are taken as they come: that one is not finite is a finding of parity's, not the end of it.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from geodtr.runtime.embed.pipeline import BATCH_SIZE, batches_ahead
from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Embedder, EmbedderPair, Images, Preprocessing
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.evaluation.evaluate import DescriptorPair, select_rows


def describe(
    models: Sequence[EmbedderPair], pair_set: PairSet, name: str, *, track: Track = untracked
) -> list[DescriptorPair]:
    """Embed every panorama and every tile with each model; `name` is whose they are, for `track`.

    Images that cannot be read as one of the models takes them are left out for all, with their pairs.
    """
    bad: dict[Path, Skipped] = {}
    paths = {branch: paths_of(pair_set, branch) for branch in BRANCHES}
    rows_of = {
        branch: _describe_branch(
            [model[branch] for model in models], paths[branch], bad, f"{name}: {branch} images", track
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
    kept = (
        [select_rows(rows, paths[branch], paths_of(left, branch)) for rows in rows_of[branch]] for branch in BRANCHES
    )
    return [DescriptorPair(left, *rows) for rows in zip(*kept, scorers, choosing, strict=True)]


def paths_of(pair_set: PairSet, branch: Branch) -> list[Path]:
    """The image of each row: a panorama a pair, and every tile once."""
    return pair_set.paths("ground") if branch == "ground" else pair_set.references


def _describe_branch(
    embedders: Sequence[Embedder], paths: Sequence[Path], bad: dict[Path, Skipped], description: str, track: Track
) -> list[Descriptors]:
    """A row for each path from each embedder; unreadable images are added to `bad`, and their rows are zero."""
    descriptors = [np.zeros((len(paths), embedder.spec.descriptor_size), np.float32) for embedder in embedders]

    def skip(row: int, error: ImageError) -> None:
        bad[paths[row]] = Skipped(paths[row], str(error))

    for geometry in dict.fromkeys(embedder.spec.preprocessing.geometry for embedder in embedders):
        alike = [index for index, each in enumerate(embedders) if each.spec.preprocessing.geometry == geometry]

        def load(row: int, how: Preprocessing = embedders[alike[0]].spec.preprocessing) -> Images:
            return load_image(paths[row], how)

        rows = range(len(paths))
        batches = batches_ahead(
            rows, load, BATCH_SIZE, count=len(paths), description=description, on_error=skip, track=track
        )
        with closing(batches):
            for batch, pixels in batches:
                for index in alike:
                    descriptors[index][batch] = embedders[index].embed(pixels)
    return descriptors
