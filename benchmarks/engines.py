"""Speed of a checkpoint and its bundles side by side: python benchmarks/engines.py SPEC MODEL [MODEL...]

Interleaved rounds; prints images per second (median and range) and each model's ratio to the first.
"""

import sys
from pathlib import Path

import numpy as np

from geodtr.export.bench import measure
from geodtr.export.model import open_model
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.pipeline import load_batches
from geodtr.training.data.spec import read_test_set

BATCHES = (1, 8)
IMAGES = 32


def main(spec: str, *paths: str) -> None:
    models = [open_model(Path(path)).embedders for path in paths]
    pairs = read_test_set(spec)
    images = {}
    for branch in BRANCHES:
        some = (pairs.paths(branch) * IMAGES)[:IMAGES]
        images[branch] = np.concatenate(list(load_batches(some, models[0][branch].spec.preprocessing)))
    for batch in BATCHES:
        print(f"batch {batch}")
        speeds = measure(models, images, batch_size=batch)
        for path, speed in zip(paths, speeds, strict=True):
            spread = f"{speed.slowest:.1f} to {speed.fastest:.1f}"
            print(f"  {path:40} {speed.median:8.1f} images/s ({spread}), {speed.median / speeds[0].median:.2f} x")


if __name__ == "__main__":
    main(*sys.argv[1:])
