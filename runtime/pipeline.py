"""From image files to descriptors, in order: threads decode and preprocess ahead while the engine runs.

Memory stays bounded by a few batches, however many files there are.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import ceil
from os import cpu_count
from pathlib import Path

import numpy as np

from geodtr.runtime.preprocess import load_image
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Embedder, Images, Preprocessing

BATCH_SIZE = 32


def load_batches(paths: Sequence[Path], how: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[Images]:
    """Decoded and preprocessed batches uint8 [B, H, W, 3]; the last one may be short. Raises ImageError."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        ahead: deque[Future[Images]] = deque()
        remaining = iter(paths)
        try:
            while True:
                room = 2 * batch_size - len(ahead)
                ahead.extend(pool.submit(load_image, path, how) for path in islice(remaining, room))
                if not ahead:
                    return
                yield np.stack([ahead.popleft().result() for _ in range(min(batch_size, len(ahead)))])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def embed_files(
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    batch_size: int = BATCH_SIZE,
    description: str = "Embedding",
    track: Track = untracked,
) -> Descriptors:
    """Descriptors float32 [len(paths), D] of image files, row i for path i. Raises ImageError, naming the bad file."""
    descriptors = np.empty((len(paths), embedder.spec.descriptor_size), np.float32)
    batches = load_batches(paths, embedder.spec.preprocessing, batch_size)
    start = 0
    for batch in track(batches, description, ceil(len(paths) / batch_size)):
        descriptors[start : start + len(batch)] = embedder.embed(batch)
        start += len(batch)
    return descriptors
