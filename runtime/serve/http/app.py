"""The HTTP API: its paths, and how an error is answered.

Knows requests; what is behind them is in batching.py, current.py and live.py.
"""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from importlib.resources import files
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

import geodtr
from geodtr.runtime.errors import ImageError, UserError
from geodtr.runtime.serve.batching import Batcher, Overloaded
from geodtr.runtime.serve.current import Current, InUse, Replacing
from geodtr.runtime.serve.http.guard import Guard, set_cookie
from geodtr.runtime.serve.http.locate import Locate
from geodtr.runtime.serve.http.messages import Bodies, as_json
from geodtr.runtime.serve.http.openapi import specification
from geodtr.runtime.serve.http.view import View
from geodtr.runtime.serve.live import Live
from geodtr.runtime.serve.metrics import CONTENT_TYPE, Metrics
from geodtr.runtime.serve.options import ServeOptions
from geodtr.runtime.serve.replies import (
    BundleReply,
    ErrorReply,
    GalleryReply,
    Health,
    StateReply,
)
from geodtr.runtime.serve.requests import Refused, Requests

Endpoint = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Request, Endpoint], Awaitable[Response]]

_AGAIN = 2
"""Seconds until a gallery that is being replaced is worth another try."""
_RESTARTED = 10
"""Seconds until a server that ends may have been started again."""
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "": "text/plain"}


class Api:
    """The endpoints of one server. `report` gets the errors that are the server's own."""

    def __init__(
        self,
        current: Current,
        batcher: Batcher,
        live: Live,
        metrics: Metrics,
        options: ServeOptions,
        report: Callable[[str], object],
    ) -> None:
        self._current, self._live, self._metrics = current, live, metrics
        self._options, self._report = options, report
        self._requests = Requests()
        self._bodies = Bodies(metrics, self._requests)
        self._view = View(current, live)
        self._locate = Locate(batcher, self._bodies, options)
        self._guard: Guard | None = None
        page = files("geodtr.runtime.serve") / "page"
        self._page = {
            prefix + path.name: path.read_bytes()
            for prefix, folder in (("", page), ("leaflet/", page / "leaflet"))
            for path in folder.iterdir()
            if path.is_file()
        }

    def app(self) -> ASGIApp:
        """The ASGI application, guarded."""
        routes = [
            self._route("/v1/locate", self._locate.one, "POST"),  # first: the others are looked through in turn
            self._route("/v1/locate/batch", self._locate.batch, "POST"),
            self._route("/", self.page),
            self._route("/page/{name:path}", self.page),
            self._route("/login", self.login, "GET", "POST"),
            self._route("/openapi.json", self.openapi),
            self._route("/healthz", self.health),
            self._route("/metrics", self.metrics),
            self._route("/v1/state", self.state),
            self._route("/v1/stream", self._view.stream),
            self._route("/v1/frames/{number}", self._view.frame),
            self._route("/v1/tiles/{row}", self._view.tile),
            self._route("/v1/map/{zoom}/{x}/{y}", self._view.square),
        ]
        self._guard = Guard(Router(routes, default=_nowhere), self._options.token, self._count)
        return self._guard

    @property
    def unanswered(self) -> int:
        """How many accepted images were given up because the server ended."""
        return self._locate.unanswered

    def give_up(self) -> None:
        """Refuse every request that is not answered yet; from the event loop."""
        self._requests.refuse_all(Refused(503, "The server ends, and cannot answer any more.", _RESTARTED))

    def _route(self, path: str, endpoint: Endpoint, *methods: str) -> Route:
        return Route(path, _Application(self._answer, path, endpoint, methods or ("GET", "HEAD")))

    def _count(self, scope: Scope, status: int) -> None:
        """Count an answer by the path of its endpoint: paths that clients make up would be labels without end."""
        endpoint = scope.get("endpoint")
        path = endpoint.path if isinstance(endpoint, _Application) else "other"
        self._metrics.requests.labels(path, str(status)).inc()

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        try:
            return await self._requests.answer(request, endpoint)
        except Exception as error:
            return self._refusal(error)

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
        problem = self._current.health
        if problem is None and self._live.source.state == "lost":
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


class _Application:
    """One endpoint for an ASGI router, which would otherwise wrap it three times."""

    def __init__(self, answer: Answer, path: str, endpoint: Endpoint, methods: Sequence[str]) -> None:
        self.path = path
        self._answer, self._endpoint, self._methods = answer, endpoint, methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if request.method in self._methods:
            response = await self._answer(request, self._endpoint)
        else:
            response = _phrase(request, HTTPStatus.METHOD_NOT_ALLOWED)
            response.headers["Allow"] = ", ".join(self._methods)
        await response(scope, receive, send)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    await _phrase(Request(scope), HTTPStatus.NOT_FOUND)(scope, receive, send)


def _phrase(request: Request, status: HTTPStatus) -> Response:
    return as_json(ErrorReply(f"{status.phrase}: {request.method} {request.url.path[:200]}"), status)
