"""Whether a row depends on its company: the same images alone, in batches, in another order, and in the whole run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geodtr.export.graph_checks import BATCHES
from geodtr.export.parity.agreement import cosines
from geodtr.export.parity.result import BatchInvariance
from geodtr.runtime.pipeline import BATCH_SIZE, load_batches
from geodtr.runtime.spec import Descriptors, Embedder

LEAST_COSINE = 0.9999
"""Kernels for other batch sizes add in another order, which costs a few 1e-7; a mixed-up row costs far more."""


def batch_invariance(embedder: Embedder, paths: Sequence[Path], in_run: Descriptors) -> BatchInvariance:
    """Embed the first of `paths` alone and in company; `in_run` holds each path's row as the run computed it.

    Needs no other model: whatever an engine computes, it has to compute alike.
    """
    count = max(BATCHES)
    first = list(paths[:count])
    images = next(load_batches(first, embedder.spec.preprocessing, count))
    # Two images in turn tell rows apart as well as seven do.
    images = np.resize(images, (count, *images.shape[1:]))
    alone = np.concatenate([embedder.embed(image[None]) for image in images])
    found = [cosines(alone[:batch], embedder.embed(images[:batch])) for batch in BATCHES]
    found.append(cosines(alone[::-1], embedder.embed(images[::-1])))
    found.append(cosines(alone[: len(first)], in_run[: len(first)]))
    return BatchInvariance(
        branch=embedder.spec.branch,
        batches=(*BATCHES, min(BATCH_SIZE, len(paths))),
        smallest_cosine=float(np.concatenate(found).min()),
    )
