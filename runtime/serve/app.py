"""The HTTP API: its paths, and how an error is answered.

Knows requests; what is behind them is in batching.py, current.py and live.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import geodtr
from geodtr.runtime.errors import ImageError, UserError
from geodtr.runtime.serve.batching import Batcher, Overloaded
from geodtr.runtime.serve.current import Current, InUse, Replacing
from geodtr.runtime.serve.guard import Guard, set_cookie
from geodtr.runtime.serve.live import Live
from geodtr.runtime.serve.messages import Bodies, Refused, as_json, search_options
from geodtr.runtime.serve.metrics import CONTENT_TYPE, Metrics
from geodtr.runtime.serve.openapi import specification
from geodtr.runtime.serve.options import ServeOptions
from geodtr.runtime.serve.replies import (
    BatchItem,
    BatchReply,
    BundleReply,
    ErrorReply,
    GalleryReply,
    Health,
    Reply,
    StateReply,
)
from geodtr.runtime.serve.view import View

Endpoint = Callable[[Request], Awaitable[Response]]

_AGAIN = 2
"""Seconds until a gallery that is being replaced is worth another try."""
_RESTARTED = 10
"""Seconds until a server that ends may have been started again."""
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "": "text/plain"}


class Api:
    """The endpoints of one server. `report` gets the errors that are the server's own.

    `unanswered` is how many accepted images were given up because the server ended.
    """

    def __init__(
        self,
        current: Current,
        batcher: Batcher,
        live: Live,
        metrics: Metrics,
        options: ServeOptions,
        report: Callable[[str], object],
    ) -> None:
        self._current, self._batcher, self._live, self._metrics = current, batcher, live, metrics
        self._options, self._report = options, report
        self._bodies = Bodies(metrics)
        self._view = View(current, live)
        self._requests = set[anyio.CancelScope]()
        self.unanswered = 0
        self._guard: Guard | None = None
        page = files(__package__) / "page"
        self._page = {
            prefix + path.name: path.read_bytes()
            for prefix, folder in (("", page), ("leaflet/", page / "leaflet"))
            for path in folder.iterdir()
            if path.is_file()
        }

    def app(self) -> ASGIApp:
        """The ASGI application, guarded."""
        routes = [
            self._route("/", self.page),
            self._route("/page/{name:path}", self.page),
            self._route("/login", self.login, "GET", "POST"),
            self._route("/openapi.json", self.openapi),
            self._route("/healthz", self.health),
            self._route("/metrics", self.metrics),
            self._route("/v1/state", self.state),
            self._route("/v1/locate", self.locate, "POST"),
            self._route("/v1/locate/batch", self.locate_batch, "POST"),
            self._route("/v1/stream", self._view.stream),
            self._route("/v1/frames/{number}", self._view.frame),
            self._route("/v1/tiles/{row}", self._view.tile),
            self._route("/v1/map/{zoom}/{x}/{y}", self._view.square),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
        self._guard = Guard(app, self._options.token)
        return self._guard

    def give_up(self) -> None:
        """Refuse every request that is not answered yet; from the event loop."""
        for each in self._requests:
            each.cancel()

    def _route(self, path: str, endpoint: Endpoint, *methods: str) -> Route:
        async def answer(request: Request) -> Response:
            response = await self._answer(request, endpoint)
            self._metrics.requests.labels(path, str(response.status_code)).inc()
            return response

        return Route(path, answer, methods=methods or ("GET",))

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        scope = anyio.CancelScope()
        self._requests.add(scope)
        try:
            with scope:
                return await endpoint(request)
        except HTTPException as error:
            return _http_error(request, error)
        except Exception as error:
            return self._refusal(error)
        finally:
            self._requests.discard(scope)
        return self._refusal(Refused(503, "The server ends, and cannot answer any more.", _RESTARTED))

    def _refusal(self, error: Exception) -> Response:
        """The answer to an error; the server's own errors are reported, and name none of its files."""
        seconds: int | None = None
        if isinstance(error, Refused):
            status, seconds = error.status, error.seconds
        elif isinstance(error, Overloaded):
            status, seconds = 503, error.seconds
        elif isinstance(error, Replacing):
            status, seconds = 503, _AGAIN
        elif isinstance(error, ImageError):
            status = 422
        else:
            self._report(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            return as_json(ErrorReply("The server failed; its own output has the reason."), 500)
        response = as_json(ErrorReply(str(error)), status)
        if seconds is not None:
            response.headers["Retry-After"] = str(seconds)
        return response

    async def locate(self, request: Request) -> Response:
        search = search_options(request)
        upload = await self._bodies.image(request, self._options.image_bytes)
        (reply,) = await self._answers(request, self._batcher.submit([upload], search))
        if isinstance(reply, Exception):
            raise reply
        return as_json(reply)

    async def locate_batch(self, request: Request) -> Response:
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
        waiting = asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        waiting.add_done_callback(_take_error)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refused(400, "The client went away.")
            results = waiting.result()
        except asyncio.CancelledError:
            self.unanswered += len(futures)
            raise
        finally:
            gone.cancel()
            for each in futures:  # at once: asyncio would in a later turn, and an image may be embedded until then
                each.cancel()
            waiting.cancel()
        replies = list[Reply | Exception]()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            replies.append(result)
        return replies

    async def state(self, request: Request) -> Response:
        del request
        return as_json(await anyio.to_thread.run_sync(self._state))

    def _state(self) -> StateReply:
        use, options = self._current(), self._options
        manifest = use.manifest
        return StateReply(
            version=geodtr.__version__,
            bundle=BundleReply(manifest.embedding_id, manifest.precision, manifest.backend.name),
            gallery=gallery_reply(use, self._current.problem),
            source=self._live.source,
            top=self._live.top,
            max_bytes=options.image_bytes,
            max_pixels=options.pixels,
        )

    async def health(self, request: Request) -> Response:
        """Open to all, so it names no file."""
        del request
        problem = None
        if self._current.problem is not None:
            problem = "A newer gallery was refused; the one before is in use."
        elif self._live.source.state == "lost":
            problem = "The source of the live view is lost."
        return as_json(Health("ok" if problem is None else "degraded", problem))

    async def metrics(self, request: Request) -> Response:
        del request
        use = self._current()
        self._metrics.gallery.set(use.number)
        self._metrics.references.set(len(use.localizer.gallery))
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        del request
        return as_json(specification(self._options))

    async def page(self, request: Request) -> Response:
        """A file out of the package, read when the server began."""
        name = request.path_params.get("name", "index.html")
        content = self._page.get(name)
        if content is None:
            raise Refused(404, "There is no such page.")
        return Response(content, media_type=_TYPES[name.rpartition(".")[2] if "." in name else ""])

    async def login(self, request: Request) -> Response:
        page = self._page["login.html"]
        if request.method == "GET":
            return Response(page, media_type=_TYPES["html"])
        upload = await self._bodies.form(request)
        tokens = parse_qs(upload.decode("utf-8", "replace")).get("token", [""])
        assert self._guard is not None
        session = self._guard.session(tokens[0].strip())
        if session is None:
            return Response(page.replace(b" hidden", b""), 401, media_type=_TYPES["html"])
        response = RedirectResponse("/", 303)
        set_cookie(response, session, secure=request.url.scheme == "https")
        return response


def gallery_reply(use: InUse, problem: str | None) -> GalleryReply:
    """The gallery in figures. `problem` names files, and is for those who may ask."""
    info, ground = use.info, use.ground
    frame = ground.frame
    return GalleryReply(
        number=use.number,
        references=info.references,
        positioned=info.positioned,
        finished=info.finished,
        bounds=None if frame is None else (frame.south, frame.west, frame.north, frame.east),
        spacing_m=ground.spacing,
        zoom=ground.zoom,
        ground=ground.drawn,
        problem=problem,
    )


def _take_error(of: asyncio.Future[Any]) -> None:
    """Images that were given up are no error to print."""
    if not of.cancelled():
        of.exception()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    why = HTTPStatus(error.status_code).phrase
    reply = as_json(ErrorReply(f"{why}: {request.method} {request.url.path[:200]}"), error.status_code)
    reply.headers.update(error.headers or {})
    return reply
