"""Images become descriptors in order, in constant memory, while reading, decoding and the engine overlap."""

import itertools
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_gallery import TinyEmbedder, pixels_of

from geodtr.runtime.embed.batch_size import largest_batch
from geodtr.runtime.embed.pipeline import Embedded, batches_ahead, embed_files, embed_frames, stop
from geodtr.runtime.errors import ConfigError, DescriptorError, ImageError
from geodtr.runtime.images.frames import PIXELS, Frame
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.spec import Descriptors, Images


class TimedEmbedder(TinyEmbedder):
    """An engine that takes `seconds` for a call and `each` for an image, on a simulated clock."""

    def __init__(self, seconds: float, each: float = 0.0) -> None:
        super().__init__()
        self._seconds, self._each = seconds, each
        self.now = 0.0

    def embed(self, images: Images) -> Descriptors:
        self.now += self._seconds + self._each * len(images)
        return super().embed(images)


class Counted(np.ndarray[Any, np.dtype[np.uint8]]):
    """An array that can be referred to weakly."""


class BrokenEmbedder(TinyEmbedder):
    """Its network overflows on a black image."""

    def embed(self, images: Images) -> Descriptors:
        rows = super().embed(images)
        rows[~images.any(axis=(1, 2, 3)), 3] = np.inf
        return rows


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:02}.png" for number in range(20)]
    for path in paths:
        Image.fromarray(pixels_of(path.name)).save(path)
    return paths


def one_by_one(embedder: TinyEmbedder, images: list[Images]) -> Descriptors:
    return np.concatenate([embedder.embed(image[None]) for image in images])


@given(count=st.integers(0, 40), batch_size=st.integers(1, 12))
@settings(deadline=None, max_examples=25)
def test_descriptors_come_in_order_for_any_batch_size(count: int, batch_size: int) -> None:
    images = [pixels_of(str(number)) for number in range(count)]
    batches = list(embed_frames(TinyEmbedder(), images, batch_size=batch_size))
    assert [len(batch.frames) for batch in batches[:-1]] == [batch_size] * max(0, len(batches) - 1)
    assert [frame.name for batch in batches for frame in batch.frames] == [f"#{number}" for number in range(count)]
    if count:
        descriptors = np.concatenate([batch.descriptors for batch in batches])
        np.testing.assert_array_equal(descriptors, one_by_one(TinyEmbedder(), images))


def test_files_pixels_and_named_frames_may_be_mixed(files: list[Path]) -> None:
    pixels = pixels_of("in memory")
    (batch,) = embed_frames(TinyEmbedder(), [files[0], pixels, Frame("drone", pixels, time=1.5)])
    assert [frame.name for frame in batch.frames] == [str(files[0]), "#1", "drone"]
    np.testing.assert_array_equal(batch.descriptors, one_by_one(TinyEmbedder(), [pixels_of("00.png"), pixels, pixels]))


def test_an_endless_source_gives_descriptors_immediately_and_is_read_a_few_batches_ahead() -> None:
    taken, ahead = 0, list[int]()

    def camera() -> Iterator[Images]:
        for number in itertools.count():
            ahead.append(number - taken)
            yield pixels_of(str(number))

    embedding = embed_frames(TinyEmbedder(), camera(), batch_size=4)
    for _ in range(50):
        assert isinstance(next(embedding), Embedded)
        taken += 4
    embedding.close()
    assert max(ahead) <= 4 + 2 * 4 + 2, "more than the requested batch and two more"
    assert threading.active_count() < 10


def test_memory_is_constant_on_endless_input() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[0, 0] = 1
    embedding = embed_frames(TinyEmbedder(), (image.copy() for _ in itertools.count()), batch_size=4)
    next(embedding)
    tracemalloc.start()
    try:
        for _ in range(100):
            next(embedding)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        embedding.close()
    assert peak < 20 * image.nbytes, "more than the images in the pipeline"


def test_a_source_is_read_while_the_engine_works() -> None:
    requests = [threading.Event() for _ in range(20)]

    def camera() -> Iterator[Images]:
        for number, event in enumerate(requests):
            event.set()
            yield pixels_of(str(number))

    class Waiting(TinyEmbedder):
        def embed(self, images: Images) -> Descriptors:
            if self.seen + 1 < len(requests):
                assert requests[self.seen + 1].wait(timeout=60), "the next frame is requested after the engine's work"
            return super().embed(images)

    assert sum(len(batch.frames) for batch in embed_frames(Waiting(), camera(), batch_size=1)) == 20


def test_a_frame_is_embedded_before_the_next_one_arrives() -> None:
    embedded = threading.Event()

    def camera() -> Iterator[Images]:
        yield pixels_of("first")
        assert embedded.wait(timeout=10), "the second frame was waited for"
        yield pixels_of("second")

    for _ in embed_frames(TinyEmbedder(), camera(), batch_size=1):
        embedded.set()


def test_a_bad_image_stops_the_run_and_is_named(files: list[Path]) -> None:
    files[7].write_bytes(files[7].read_bytes()[:60])
    with pytest.raises(ImageError, match=r"07\.png cannot be decoded"):
        embed_files(TinyEmbedder(), files, batch_size=4)


def test_a_bad_image_is_left_out_if_the_caller_chooses(files: list[Path]) -> None:
    for number in (0, 7, 19):
        files[number].write_bytes(b"")
    bad = list[str]()

    def leave_out(frame: Frame, error: ImageError) -> None:
        bad.append(Path(frame.name).name)
        assert bad[-1] in str(error)

    descriptors = embed_files(TinyEmbedder(), files, batch_size=4, on_error=leave_out)
    assert bad == ["00.png", "07.png", "19.png"]
    good = [pixels_of(path.name) for path in files if path.name not in bad]
    np.testing.assert_array_equal(descriptors, one_by_one(TinyEmbedder(), good))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint16),
    ],
)
def test_pixels_of_another_kind_are_refused_naming_them(pixels: Images) -> None:
    with pytest.raises(ImageError, match=r"#1 is an array of .*uint8 RGB"):
        list(embed_frames(TinyEmbedder(), [pixels_of("good"), pixels]))


def test_a_descriptor_that_is_not_finite_names_its_image() -> None:
    images = [pixels_of("a"), pixels_of("b"), np.zeros((4, 4, 3), np.uint8), pixels_of("c")]
    with pytest.raises(DescriptorError, match=r"of #2 is not finite.*--precision fp32"):
        list(embed_frames(BrokenEmbedder(), images))


def test_an_error_of_a_source_comes_after_its_frames() -> None:
    def camera() -> Iterator[Images]:
        yield pixels_of("first")
        raise OSError("unplugged")

    embedding = embed_frames(TinyEmbedder(), camera(), batch_size=1)
    assert len(next(embedding).frames) == 1
    with pytest.raises(OSError, match="unplugged"):
        next(embedding)


def test_nothing_starts_after_the_caller_stopped() -> None:
    begun = list[int]()
    working = work_ahead(begun.append, itertools.count(), threads=2, ahead=3)
    next(working)
    working.close()
    assert len(begun) <= 5
    assert "work_ahead" not in {thread.name for thread in threading.enumerate()}, "items are still taken"


def test_the_pixels_of_large_frames_are_not_held_for_a_batch() -> None:
    """A hundred frames of an 8K video are 10 GB."""
    alive = set[int]()
    most = 0

    class Video:
        """Frames of 8K that count themselves while they live; they are empty, so that they cost nothing here."""

        def __iter__(self) -> Iterator[Frame]:
            nonlocal most
            for number in range(100):
                pixels = np.broadcast_to(np.zeros(3, np.uint8), (4320, 7680, 3)).view(Counted)
                alive.add(number)
                weakref.finalize(pixels, alive.discard, number)
                most = max(most, len(alive))
                yield Frame(f"#{number}", pixels)

    loaded = batches_ahead(Video(), lambda _: np.zeros((4, 4, 3), np.uint8), 100, on_error=stop, bulk=PIXELS)
    ((frames, images),) = loaded
    assert len(frames) == len(images) == 100
    assert [frame.image for frame in frames] == [None] * 100
    assert most <= 5


@pytest.mark.parametrize(("milliseconds", "largest"), [(25.1, 3), (50.1, 8), (60.1, 10)])
def test_the_batch_is_the_largest_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, milliseconds: float, largest: int
) -> None:
    """A batch of B takes 10 + 5 B ms. Only the clock is replaced."""
    embedder = TimedEmbedder(seconds=0.010, each=0.005)
    monkeypatch.setattr(time, "perf_counter", lambda: embedder.now)
    assert largest_batch(embedder, milliseconds, most=16) == largest


def test_no_batch_is_larger_than_the_maximum() -> None:
    assert largest_batch(TinyEmbedder(), 10_000, most=12) == 12


def test_a_budget_below_the_latency_of_one_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = TimedEmbedder(seconds=0.02)
    monkeypatch.setattr(time, "perf_counter", lambda: embedder.now)
    with pytest.raises(ConfigError, match=r"budget of 5 ms.*one image takes 20 ms here.*int8"):
        largest_batch(embedder, 5)
