"""The largest batch that an engine embeds within a given time, by measuring it.

Knows embedders and a clock; knows nothing of files.
"""

import time
from bisect import bisect
from statistics import median

import numpy as np

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Embedder, Images, noise

MOST = 256
"""Larger batches gain nothing that was measured, and hold more memory."""

_CALLS = 5


def largest_batch(embedder: Embedder, milliseconds: float, most: int = MOST) -> int:
    """The largest batch, 1 to `most`, whose call takes no longer than `milliseconds`: the median of five calls here and
    now, on an engine that is warm. Waiting for a batch to fill, reading and decoding are not in it.

    Sizes are doubled while they keep within the budget; the gap that is left is halved. Raises ConfigError when one
    image takes longer.
    """
    images = noise(embedder.spec, 1)
    one = _call(embedder, images)
    if one > milliseconds:
        raise ConfigError(
            f"A latency budget of {milliseconds:g} ms is too small: one image takes {one:.3g} ms here. Allow more, or "
            "build a faster engine: geodtr-export build-engine ... --precision int8"
        )

    def fits(batch: int) -> bool:
        return _call(embedder, np.repeat(images, batch, axis=0)) <= milliseconds

    within, beyond = 1, 2
    while beyond <= most and fits(beyond):
        within, beyond = beyond, 2 * beyond
    return bisect(range(min(beyond, most + 1)), False, within + 1, key=lambda batch: not fits(batch)) - 1


def _call(embedder: Embedder, images: Images) -> float:
    """Milliseconds that embedding `images` takes, after a call that is not counted: the first of a size prepares it."""
    embedder.embed(images)
    taken = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        embedder.embed(images)
        taken.append(time.perf_counter() - start)
    return 1000 * median(taken)
