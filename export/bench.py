"""Speed of models on this machine, measured side by side in one interleaved run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import EmbedderPair, Images


@dataclass(frozen=True, slots=True)
class Speed:
    """Images per second through the network alone, both branches in turn: median and range over the rounds."""

    median: float
    slowest: float
    fastest: float


def measure(
    models: Sequence[EmbedderPair],
    images: dict[Branch, Images],
    *,
    batch_size: int = 32,
    rounds: int = 5,
    track: Track = untracked,
) -> list[Speed]:
    """Embed `images` (preprocessed, [N, H, W, 3] a branch) with each model in turn, `rounds` times over.

    The turn goes round the models so that a neighbour's load on a shared machine falls on all alike; one untimed round
    warms them up.
    """
    rates: list[list[float]] = [[] for _ in models]
    for number in track(range(rounds + 1), "Measuring speed", rounds + 1):
        for model, rate in zip(models, rates, strict=True):
            start = time.perf_counter()
            for branch in BRANCHES:
                for first in range(0, len(images[branch]), batch_size):
                    model[branch].embed(images[branch][first : first + batch_size])
            if number:
                rate.append(sum(map(len, images.values())) / (time.perf_counter() - start))
    return [Speed(median(rate), min(rate), max(rate)) for rate in rates]
