"""The endpoints that answer images: one, or the files of a form.

Knows requests and futures; what is behind the futures is in batching.py.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from geodtr.runtime.errors import ImageError
from geodtr.runtime.serve.batching import Batcher
from geodtr.runtime.serve.http.messages import Bodies, as_json, search_options
from geodtr.runtime.serve.options import ServeOptions
from geodtr.runtime.serve.replies import BatchItem, BatchReply, Reply
from geodtr.runtime.serve.requests import Refused


class Locate:
    """Answers the images of requests, all in one event loop.

    `unanswered` is how many accepted images were given up because the server ended.
    """

    def __init__(self, batcher: Batcher, bodies: Bodies, options: ServeOptions) -> None:
        self._batcher, self._bodies, self._options = batcher, bodies, options
        self._calls = _Calls()
        self.unanswered = 0

    async def one(self, request: Request) -> Response:
        search = search_options(request)
        upload = await self._bodies.image(request, self._options.image_bytes)
        (reply,) = await self._answers(request, self._batcher.submit([upload], search))
        if isinstance(reply, Exception):
            raise reply
        return as_json(reply)

    async def batch(self, request: Request) -> Response:
        search = search_options(request)
        uploads = await self._bodies.images(request, self._options.batch_bytes)
        if len(uploads) > self._options.queue:
            for upload in uploads:
                upload.drop()
            raise Refused(413, f"{len(uploads)} images are more than the server accepts, {self._options.queue}.")
        replies = await self._answers(request, self._batcher.submit(uploads, search))
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, ImageError):
                raise reply
        items = [
            BatchItem(upload.name, None, str(reply))
            if isinstance(reply, Exception)
            else BatchItem(upload.name, reply, None)
            for upload, reply in zip(uploads, replies, strict=True)
        ]
        return as_json(BatchReply(items))

    async def _answers(self, request: Request, futures: Sequence[Future[Reply]]) -> list[Reply | Exception]:
        """What became of each image; all are given up when the client goes away."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bool] = loop.create_future()
        left = len(futures)

        def end(whole: bool) -> None:
            if not answered.done():
                answered.set_result(whole)

        def count() -> None:
            nonlocal left
            left -= 1
            if not left:
                end(True)

        for future in futures:
            future.add_done_callback(lambda _: self._calls.call(loop, count))
        gone = asyncio.ensure_future(_disconnected(request))
        gone.add_done_callback(lambda _: end(False))
        try:
            if not await answered:
                raise Refused(400, "The client went away.")
        except asyncio.CancelledError:
            self.unanswered += sum(not future.done() for future in futures)
            raise
        finally:
            gone.cancel()
            for each in futures:
                each.cancel()
        return [_outcome(future) for future in futures]


class _Calls:
    """Calls functions in the event loop for other threads, and wakes it once for many: to wake it takes longer than to
    write an answer.
    """

    def __init__(self) -> None:
        self._calls = deque[Callable[[], Any]]()
        self._woken = False

    def call(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
        """From any thread."""
        self._calls.append(function)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._woken = False  # first: what comes from now on wakes the loop again
        while self._calls:
            self._calls.popleft()()


def _outcome(future: Future[Reply]) -> Reply | Exception:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
