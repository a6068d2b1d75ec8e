"""Embed images in order: threads read, decode and preprocess ahead while the engine runs.

A few batches bound the memory, so a source may be endless. The engine runs in the caller's thread, because the state
that a backend keeps per thread (TensorRT: streams and graphs) must outlive the call.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from geodtr.runtime.arguments import check_argument
from geodtr.runtime.errors import DescriptorError, ImageError
from geodtr.runtime.images.frames import PIXELS, Frame, as_frames, decode_frame, load_frame, preprocess_frame
from geodtr.runtime.images.intake import Intake
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.prefetch import Bulk, work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Embedder, Images, Preprocessing

BATCH_SIZE = 32

T = TypeVar("T")


OnError = Callable[[Path, ImageError], None]
"""Called for an image that cannot be read: raises to stop the run, or returns to skip it."""
OnBadFrame = Callable[[Frame, ImageError], None]
"""As OnError, for an image that need not be a file."""
OnDoubt = Callable[[Frame, str], object]
"""Called, by a thread, with an image that the model was not trained on, and why it is none."""


def ignored(frame: Frame, doubt: str) -> None:
    """The default: doubts are the caller's affair."""
    del frame, doubt


def stop(image: object, error: ImageError) -> None:
    """The default: a bad image stops the run."""
    del image
    raise error


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One batch: descriptors float32 [B, D], row i of frames[i]. The frames' pixels are no longer held."""

    frames: list[Frame]
    descriptors: Descriptors


def embed_frames(
    embedder: Embedder,
    images: Path | str | Iterable[Path | str | Images | Frame],
    *,
    batch_size: int = BATCH_SIZE,
    count: int | None = None,
    description: str = "Embedding",
    on_error: OnBadFrame = stop,
    intake: Intake | None = None,
    on_doubt: OnDoubt = ignored,
    track: Track = untracked,
) -> Generator[Embedded, None, None]:
    """Embed images in order and yield each batch as soon as it is ready.

    Parameters
    ----------
    images
        Files, pixels (uint8 RGB [h, w, 3]) or frames, possibly endless. A thread reads them, at most three batches
        ahead of the results.
    batch_size
        A batch is embedded when it is full, so take 1 for a camera; only the last batch may be short.
    count
        Number of images, if known, for `track`.
    on_error
        Called for an image that cannot be read; if it returns, the image is skipped.
    intake
        What is known of all images: each is then converted and checked as `localize` does; None takes them as they are.
    on_doubt
        Called for an image that the model was not trained on where `intake` lets it pass, with the reason.

    Raises
    ------
    ImageError
        `on_error` raised it.
    DescriptorError
        The named image's descriptor is not finite.
    """
    how = embedder.spec.preprocessing
    if intake is None:
        load = partial(load_frame, how=how)
    else:
        intake.check(how.imagery)
        load = partial(_load_checked, how=how, intake=intake, on_doubt=on_doubt)
    loaded = batches_ahead(
        as_frames(images),
        load,
        batch_size,
        count=count,
        description=description,
        on_error=on_error,
        track=track,
        bulk=PIXELS,
    )
    with closing(loaded):
        for frames, pixels in loaded:
            descriptors = embedder.embed(pixels)
            check_finite(descriptors, [frame.name for frame in frames])
            yield Embedded(frames, descriptors)


def check_finite(descriptors: Descriptors, names: Sequence[str]) -> None:
    """Raise DescriptorError naming the first image whose descriptor is not finite, [B, D]."""
    finite = np.isfinite(descriptors).all(axis=1)
    if not finite.all():
        raise DescriptorError(
            f"The descriptor of {names[int(finite.argmin())]} is not finite: the engine overflows, or its model is "
            "broken. Build it in float32: geodtr-export build-engine ... --precision fp32"
        )


def _load_checked(frame: Frame, how: Preprocessing, intake: Intake, on_doubt: OnDoubt) -> Images:
    taken = intake.take(decode_frame(frame), how.imagery, frame.called, frame.recorded)
    if taken.doubt is not None:
        on_doubt(frame, taken.doubt)
    return preprocess_frame(frame, taken.image, how)


def embed_files(
    embedder: Embedder, images: Path | str | Iterable[Path | str | Images | Frame], **how: Any
) -> Descriptors:
    """Descriptors float32 [N, D], one row for each image that `on_error` did not skip; `how` as of `embed_frames`."""
    parts = deque(each.descriptors for each in embed_frames(embedder, images, **how))
    rows, start = np.empty((sum(map(len, parts)), embedder.spec.descriptor_size), np.float32), 0
    while parts:  # one after the other is let go: all of them beside the whole would take twice the memory
        part = parts.popleft()
        rows[start : start + len(part)] = part
        start += len(part)
    return rows


def load_batches(paths: Sequence[Path], how: Preprocessing, batch_size: int = BATCH_SIZE) -> Iterator[Images]:
    """Decoded and preprocessed batches uint8 [B, H, W, 3], in order; only the last one may be short."""
    return in_batches(paths, partial(load_image, how=how), batch_size)


def in_batches(paths: Sequence[Path], load: Callable[[Path], Images], batch_size: int = BATCH_SIZE) -> Iterator[Images]:
    """The same by another `load`, uint8 RGB [H, W, 3] of a file."""
    with closing(batches_ahead(paths, load, batch_size, on_error=stop)) as loaded:
        for _, images in loaded:
            yield images


def batches_ahead(
    items: Iterable[T],
    load: Callable[[T], Images],
    batch_size: int = BATCH_SIZE,
    *,
    count: int | None = None,
    description: str = "Reading",
    on_error: Callable[[T, ImageError], None],
    track: Track = untracked,
    bulk: Bulk[T] | None = None,
) -> Generator[tuple[list[T], Images], None, None]:
    """Items with the images that `load` returns, stacked to uint8 [B, H, W, 3], in order; only the last batch may be
    short.

    Threads load up to two batches ahead of the caller. An item that cannot be loaded goes to `on_error`, and is skipped
    if that returns. Raises ConfigError for a batch size below 1.
    """
    check_argument("batch_size", batch_size, int, 1)
    batch = list[tuple[T, Images]]()
    with closing(work_ahead(load, items, threads=cpu_count(), ahead=2 * batch_size, bulk=bulk)) as loaded:
        for each in track(_whole(loaded, on_error), description, count):
            batch.append(each)
            if len(batch) == batch_size:
                yield _stacked(batch)
                batch.clear()
    if batch:
        yield _stacked(batch)


def _whole(
    loaded: Iterable[tuple[T, Future[Images]]], on_error: Callable[[T, ImageError], None]
) -> Iterator[tuple[T, Images]]:
    """Those items that could be loaded."""
    for item, loading in loaded:
        try:
            image = loading.result()
        except ImageError as error:
            on_error(item, error)
        else:
            yield item, image


def _stacked(batch: Sequence[tuple[T, Images]]) -> tuple[list[T], Images]:
    return [item for item, _ in batch], np.stack([image for _, image in batch])


def decode_ahead(paths: Iterable[Path], how: Preprocessing, ahead: int) -> Iterator[Images | ImageError]:
    """Each path's image, decoded and preprocessed, uint8 [H, W, 3], or its error; in order.

    Threads load up to `ahead` images ahead of the caller.
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
