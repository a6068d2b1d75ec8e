"""Several models' descriptors of the same images, each image decoded once for all models that see it alike.

Descriptors are taken as they come: that one is not finite is a finding of parity's, not the end of it.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from geodtr.runtime.errors import ImageError
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Embedder, EmbedderPair
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.evaluation.evaluate import DescriptorPair, row_batches


def describe(
    models: Sequence[EmbedderPair], pair_set: PairSet, name: str, *, track: Track = untracked
) -> list[DescriptorPair]:
    """Embed every panorama and every tile with each model; `name` is whose they are, for `track`.

    Images that cannot be read as one of the models takes them are left out for all, with their pairs.
    """
    bad: dict[Path, Skipped] = {}
    ground, aerial = (
        _describe_branch([model[branch] for model in models], pair_set, bad, f"{name}: {branch} images", track)
        for branch in BRANCHES
    )
    return [
        DescriptorPair.of(model, pair_set, *rows).without(bad)
        for model, *rows in zip(models, ground, aerial, strict=True)
    ]


def _describe_branch(
    embedders: Sequence[Embedder], pair_set: PairSet, bad: dict[Path, Skipped], description: str, track: Track
) -> list[Descriptors]:
    """A row for each of the set's from each embedder; unreadable images are added to `bad`, and their rows are zero."""
    count = len(pair_set.rows(embedders[0].spec.branch))
    descriptors = [np.zeros((count, embedder.spec.descriptor_size), np.float32) for embedder in embedders]

    def skip(path: Path, error: ImageError) -> None:
        bad[path] = Skipped(path, str(error))

    for geometry in dict.fromkeys(embedder.spec.preprocessing.geometry for embedder in embedders):
        alike = [index for index, each in enumerate(embedders) if each.spec.preprocessing.geometry == geometry]
        with closing(
            row_batches(pair_set, embedders[alike[0]].spec, description, on_error=skip, track=track)
        ) as batches:
            for rows, pixels in batches:
                for index in alike:
                    descriptors[index][rows] = embedders[index].embed(pixels)
    return descriptors
