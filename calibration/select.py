"""Which images to calibrate on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

IMAGES = 200


def select(paths: Sequence[Path], count: int = IMAGES, seed: int = 0) -> list[Path]:
    """`count` of `paths` by a seeded draw, in their original order; all of them where there are no more than that."""
    if len(paths) <= count:
        return list(paths)
    chosen = np.random.default_rng(seed).choice(len(paths), size=count, replace=False)
    return [paths[index] for index in sorted(chosen.tolist())]
