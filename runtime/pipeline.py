"""From image files to descriptors, in order: threads decode and preprocess ahead while the engine runs.

Memory stays bounded by a few batches, however many files there are.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from math import ceil
from os import cpu_count
from pathlib import Path
from typing import Protocol

import numpy as np

from geodtr.runtime.errors import ImageError
from geodtr.runtime.preprocess import load_image
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Embedder, Images, Preprocessing
from geodtr.runtime.threads import work_ahead

BATCH_SIZE = 32


class OnError(Protocol):
    """What becomes of an image that cannot be read: raise to stop the run, or return to leave it out."""

    def __call__(self, path: Path, error: ImageError) -> None: ...


def stop(path: Path, error: ImageError) -> None:
    """The default: a bad image stops the run."""
    del path
    raise error


def load_batches(
    paths: Sequence[Path], how: Preprocessing, batch_size: int = BATCH_SIZE, *, on_error: OnError = stop
) -> Iterator[Images]:
    """Decoded and preprocessed batches uint8 [B, H, W, 3], in order; only the last one may be short."""
    batch = list[Images]()
    for path, image in zip(paths, decode_ahead(paths, how, 2 * batch_size), strict=True):
        if isinstance(image, ImageError):
            on_error(path, image)
            continue
        batch.append(image)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch.clear()
    if batch:
        yield np.stack(batch)


def decode_ahead(paths: Iterable[Path], how: Preprocessing, ahead: int) -> Iterator[Images | ImageError]:
    """Each path's image, decoded and preprocessed, uint8 [H, W, 3], or why there is none; in order.

    Threads work on up to `ahead` of them while the caller is busy with those before.
    """
    load = partial(load_image, how=how)
    with closing(work_ahead(load, paths, threads=cpu_count(), ahead=ahead)) as loaded:
        for _, loading in loaded:
            try:
                image = loading.result()
            except ImageError as error:
                yield error
            else:
                yield image


def embed_files(
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    batch_size: int = BATCH_SIZE,
    description: str = "Embedding",
    on_error: OnError = stop,
    track: Track = untracked,
) -> Descriptors:
    """Descriptors float32 [N, D] of image files, a row for each path that `on_error` did not leave out."""
    descriptors = np.empty((len(paths), embedder.spec.descriptor_size), np.float32)
    batches = load_batches(paths, embedder.spec.preprocessing, batch_size, on_error=on_error)
    start = 0
    for batch in track(batches, description, ceil(len(paths) / batch_size)):
        descriptors[start : start + len(batch)] = embedder.embed(batch)
        start += len(batch)
    return descriptors[:start]
