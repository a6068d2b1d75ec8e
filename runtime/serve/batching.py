"""Images of many clients, gathered into batches: threads decode, one thread embeds and searches.

The queue is bounded. What was accepted is answered, unless its future is cancelled; what cannot be accepted is refused
at once. Knows bytes and localizers; knows nothing of HTTP.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import ceil
from queue import SimpleQueue
from threading import Condition, Thread

from geodtr.runtime.errors import DataError, ImageError, UserError
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.decode import Decoded, decode_bytes
from geodtr.runtime.images.frames import Frame
from geodtr.runtime.localization.answers import Prepared
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.serve.current import InUse, Replacing
from geodtr.runtime.serve.metrics import Metrics
from geodtr.runtime.serve.options import ServeOptions
from geodtr.runtime.serve.replies import Reply, Stages, reply_of
from geodtr.runtime.sources.positioned.exif import position_of
from geodtr.runtime.sources.tile import Position

_LONGEST_PAUSE = 60.0


class Overloaded(UserError):
    """No more images can be accepted now; `seconds` is when it may be worth another try."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The server has as many images as it accepts. Try again in {seconds} s.")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a client wants to know of its images."""

    top: int = 5
    near: Near | None = None
    heat: int = 0

    @property
    def candidates(self) -> int:
        return max(self.top, self.heat)


@dataclass(slots=True, eq=False)
class Upload:
    """An image file's bytes, and what its client calls it; `on_drop` gets the number of bytes that are let go."""

    name: str
    content: bytes
    on_drop: Callable[[int], object]

    def drop(self) -> None:
        """Let go of the bytes: they are decoded, or nobody wants them any more."""
        size, self.content = len(self.content), b""
        self.on_drop(size)


@dataclass(slots=True, eq=False)
class _Job:
    search: SearchOptions
    use: InUse
    arrived: float
    future: Future[Reply] = field(default_factory=Future)
    prepared: Prepared | None = None
    located: Localisation | None = None
    known: Position | None = None
    decoding: float = 0.0


class Batcher:
    """Answers images. Close it to answer all that was accepted and end its threads."""

    def __init__(self, in_use: Callable[[], InUse], metrics: Metrics, options: ServeOptions) -> None:
        """`in_use`: the localizer at the moment; every image keeps the one that it was accepted with."""
        self._in_use, self._metrics, self._options = in_use, metrics, options
        metrics.accepted.set_function(lambda: self._accepted)
        self._changed = Condition()
        self._ready = deque[_Job]()
        self._accepted = 0  # not answered yet
        self._decoding = 0
        self._closing = False
        self._second_each = 0.0  # what an image took lately
        self._uploads: SimpleQueue[tuple[_Job, Upload] | None] = SimpleQueue()
        self._threads = [Thread(target=self._work, name="embed", daemon=True)]
        self._decoders = os.cpu_count() or 1
        self._threads += [Thread(target=self._decode_all, name="decode", daemon=True) for _ in range(self._decoders)]
        for thread in self._threads:
            thread.start()

    @property
    def accepted(self) -> int:
        """How many images are accepted and not answered yet."""
        return self._accepted

    def submit(self, uploads: Sequence[Upload], search: SearchOptions) -> list[Future[Reply]]:
        """Accept all of the images, or none of them; each future gives its answer, or raises ImageError.

        Cancelling a future gives up its image. Each upload is dropped when it is decoded, or not accepted. Raises
        Overloaded.
        """
        with self._changed:
            if self._closing or self._accepted + len(uploads) > self._options.queue:
                for upload in uploads:
                    upload.drop()
                pause = min(max(1.0, self._accepted * self._second_each), _LONGEST_PAUSE)
                raise Overloaded(ceil(pause))
            use, now = self._in_use(), time.monotonic()
            jobs = [_Job(search, use, now) for _ in uploads]
            self._accepted += len(jobs)
            self._decoding += len(jobs)
            for job, upload in zip(jobs, uploads, strict=True):
                self._uploads.put((job, upload))
        return [job.future for job in jobs]

    def locate(self, frame: Frame, decoded: Decoded, search: SearchOptions) -> tuple[Localisation, Reply]:
        """Answer a frame of the live view before all that waits. Raises ImageError, GalleryError."""
        job = _Job(search, self._in_use(), time.monotonic())
        start = time.perf_counter()
        self._prepare(job, Frame(frame.name, decoded, frame.time, frame.altitude), decoded)
        job.decoding = time.perf_counter() - start
        with self._changed:
            if self._closing:
                raise Overloaded(1)
            self._accepted += 1
            self._ready.appendleft(job)
            self._changed.notify_all()
        reply = job.future.result()
        assert job.located is not None
        return job.located, reply

    def close(self) -> None:
        """Accept nothing more, answer the rest, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for _ in range(self._decoders):
            self._uploads.put(None)
        for thread in self._threads:
            thread.join()

    def _decode_all(self) -> None:
        while (accepted := self._uploads.get()) is not None:
            self._decode(*accepted)

    def _decode(self, job: _Job, upload: Upload) -> None:
        start = time.perf_counter()
        failed: BaseException | None = None
        try:
            if not job.future.cancelled():
                decoded = decode_bytes(upload.content, upload.name, self._options.pixels)
                self._prepare(job, Frame(upload.name, decoded), decoded)
        except BaseException as error:  # reported to the client
            error.__cause__ = error.__context__ = None
            failed = error.with_traceback(None)  # which would hold the image's bytes and pixels
        upload.drop()
        job.decoding = time.perf_counter() - start
        with self._changed:
            self._decoding -= 1
            if failed is None and job.prepared is not None:
                self._ready.append(job)
            # The first of a batch, or the last that it waits for: to wake the worker for each costs more than a decode.
            if len(self._ready) == 1 or len(self._ready) >= self._options.batch_size or not self._decoding:
                self._changed.notify_all()
        if failed is not None:
            self._fail(job, failed)
        elif job.prepared is None:
            self._release("given up")

    def _prepare(self, job: _Job, frame: Frame, decoded: Decoded) -> None:
        try:
            job.known = position_of(decoded.image, frame.called)
        except (DataError, OSError, SyntaxError, ValueError):
            job.known = None  # an image may lie about its place, and still be located
        job.prepared = job.use.localizer.prepare(frame)

    def _work(self) -> None:
        while batch := self._gather():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            self._release("given up", len(batch) - len(running))
            try:
                if running:
                    self._answer(running)
            except BaseException as error:  # every one of them needs an answer
                self._answer_singly(running, error)

    def _gather(self) -> list[_Job]:
        """The next images of one localizer; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or (self._closing and not self._accepted))
            if not self._ready:
                return []
            until = time.monotonic() + self._options.wait_ms / 1000
            while len(self._ready) < self._options.batch_size and self._decoding and not self._closing:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            use = self._ready[0].use
            most = max(1, self._options.batch_size // use.localizer.suppositions)
            batch = list[_Job]()
            while self._ready and len(batch) < most and self._ready[0].use is use:
                batch.append(self._ready.popleft())
            return batch

    def _answer_singly(self, jobs: Sequence[_Job], error: BaseException) -> None:
        """One image whose descriptor cannot be searched with must not fail the others."""
        for job in jobs:
            if job.future.done():
                continue
            if len(jobs) == 1 or not isinstance(error, UserError) or isinstance(error, Replacing):
                self._fail(job, error)
                continue
            try:
                self._answer([job])
            except BaseException as own:
                self._fail(job, own)

    def _answer(self, jobs: Sequence[_Job]) -> None:
        use = jobs[0].use
        start = time.perf_counter()
        prepared = [job.prepared for job in jobs if job.prepared is not None]
        descriptors = use.localizer.embed(prepared)
        embedded = time.perf_counter()
        rows = [0]
        for each in prepared:
            rows.append(rows[-1] + len(each.query.images))
        for near in {job.search.near for job in jobs}:
            numbers = [number for number, job in enumerate(jobs) if job.search.near == near]
            top = max(jobs[number].search.candidates for number in numbers)
            part = descriptors[[row for number in numbers for row in range(rows[number], rows[number + 1])]]
            answers = use.localizer.answer([prepared[number] for number in numbers], part, top, near=near)
            for number, located in zip(numbers, answers, strict=True):
                jobs[number].located = located
        use.check()
        searched = time.perf_counter()
        self._second_each += 0.1 * ((searched - start) / len(jobs) - self._second_each)
        self._metrics.batch.observe(len(jobs))
        replies = list[Reply]()
        for job in jobs:
            assert job.located is not None
            total = time.monotonic() - job.arrived
            wait = max(0.0, total - job.decoding - (searched - start))
            times = (job.decoding, wait, embedded - start, searched - embedded, total)
            stages = Stages(*(round(1000 * each, 2) for each in times))
            search = job.search
            replies.append(
                reply_of(
                    job.located, gallery=use.number, top=search.top, heat=search.heat, known=job.known, stages=stages
                )
            )
            self._metrics.observe(stages)
        self._release("answered", len(jobs))  # before clients know, who may send their next ones at once
        for job, reply in zip(jobs, replies, strict=True):
            job.future.set_result(reply)

    def _fail(self, job: _Job, error: BaseException) -> None:
        if job.future.done() or (not job.future.running() and not job.future.set_running_or_notify_cancel()):
            self._release("given up")
            return
        job.future.set_exception(error)
        self._release("refused" if isinstance(error, ImageError) else "failed")

    def _release(self, outcome: str, count: int = 1) -> None:
        self._metrics.images.labels(outcome).inc(count)
        with self._changed:
            self._accepted -= count
            if self._closing:
                self._changed.notify_all()
