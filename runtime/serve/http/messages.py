"""What comes in and goes out over HTTP: parameters and bodies, read within limits, and answers as JSON."""

from collections.abc import Awaitable, Callable
from io import BytesIO
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.geodesy import Near
from geodtr.runtime.serve.batching import SearchOptions, Upload
from geodtr.runtime.serve.http.forms import FormError, FormReader
from geodtr.runtime.serve.metrics import Metrics
from geodtr.runtime.serve.options import ROOM
from geodtr.runtime.serve.requests import Refused, Requests

BODY_SECONDS = 60.0
"""Longest time that a body may take to come."""
MOST_IN_BATCH = 64
MOST_TOP = 100
MOST_HEAT = 1000
MOST_RADIUS = 2e7
_FORM = 4096
ONE_IMAGE = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff", "application/octet-stream")
MULTIPART = "multipart/form-data"


def as_json(document: Any, status: int = 200) -> Response:
    """An answer out of a value that JSON has."""
    return Response(encode_json(document), status, media_type="application/json")


def search_options(request: Request) -> SearchOptions:
    """The query parameters. Raises Refused."""
    if not request.scope["query_string"]:
        return SearchOptions()
    given = dict[str, str]()
    for name, value in request.query_params.multi_items():
        if name not in ("top", "near", "heat"):
            raise Refused(400, f"{name!r} is no parameter; allowed are top, near and heat.")
        if name in given:
            raise Refused(400, f"{name} is given twice.")
        given[name] = value
    return SearchOptions(
        _whole(given, "top", 5, 1, MOST_TOP),
        None if "near" not in given else _near(given["near"]),
        _whole(given, "heat", 0, 0, MOST_HEAT),
    )


def _whole(given: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = given.get(name, str(default))
    if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise Refused(400, f"{name} is {text[:40]!r}; allowed are whole numbers from {least} to {most}.")


def _near(text: str) -> Near:
    try:
        lat, lon, radius = (float(part) for part in text.split(","))
        if radius <= MOST_RADIUS:
            return Near(lat, lon, radius)
    except (ValueError, ConfigError):
        pass
    raise Refused(400, f"near is {text[:80]!r}; needed are degrees, degrees and metres: -30.01,-15.02,500")


class _Room:
    """Counts the bytes of all clients' images, from the first that is received until the image is decoded."""

    def __init__(self, metrics: Metrics) -> None:
        self._lock, self._held = Lock(), 0
        metrics.held.set_function(lambda: self._held)

    def take(self, size: int) -> None:
        with self._lock:
            if self._held + size > ROOM:
                raise Refused(503, "The server holds as many bytes of images as it can. Try again in 2 s.", 2)
            self._held += size

    def give(self, size: int) -> None:
        with self._lock:
            self._held -= size


class _Hold:
    """The room of one body while it comes. What no upload has taken over is given back at the end."""

    def __init__(self, room: _Room) -> None:
        self._room, self._size = room, 0

    def take(self, size: int) -> None:
        self._room.take(size)
        self._size += size

    def upload(self, name: str, content: bytes) -> Upload:
        self._size -= len(content)
        return Upload(name, content, self._room.give)

    def __enter__(self) -> "_Hold":
        return self

    def __exit__(self, *_: object) -> None:
        self._room.give(self._size)


class Bodies:
    """Receives bodies within limits: of one, of all together, and of time."""

    def __init__(self, metrics: Metrics, requests: Requests) -> None:
        self._room, self._requests = _Room(metrics), requests

    async def image(self, request: Request, limit: int) -> Upload:
        """The one image of a request, as its body or as the one file of a form. Raises Refused."""
        kind = _kind(request)
        if kind == MULTIPART:
            uploads = await self.images(request, limit, 1)
            return uploads[0]
        if kind not in ONE_IMAGE:
            raise Refused(415, f"A body of {kind!r} is none of {', '.join(ONE_IMAGE)} or {MULTIPART}.")
        with _Hold(self._room) as hold:
            content = await self._whole(request, limit, hold)
            if not content:
                raise Refused(422, "The body is empty. Send an image.")
            return hold.upload("image", content)

    async def images(self, request: Request, limit: int, most: int = MOST_IN_BATCH) -> list[Upload]:
        """The files of a form, none of which touches the disk. Raises Refused."""
        kind = _kind(request)
        if kind != MULTIPART:
            raise Refused(415, f"A body of {kind!r} is no form of files: {MULTIPART} is needed.")
        with _Hold(self._room) as hold:
            try:
                form = FormReader(request.headers["content-type"], most)
                await self._receive(request, limit, hold, form.write)
                files = form.files()
            except FormError as error:
                raise Refused(400, f"The form cannot be read. {error}; up to {most} files are allowed.") from None
            if not files:
                raise Refused(422, "The form holds no file. Add an image: curl -F image=@street.jpg")
            return [hold.upload(name, content) for name, content in files]

    async def form(self, request: Request) -> bytes:
        """The few bytes of a login form. Raises Refused."""
        if _kind(request) != "application/x-www-form-urlencoded":
            raise Refused(415, "A login is a form: application/x-www-form-urlencoded.")
        with _Hold(self._room) as hold:
            return await self._whole(request, _FORM, hold)

    async def _whole(self, request: Request, limit: int, hold: _Hold) -> bytes:
        content = BytesIO()  # which neither growing nor reading copies

        async def keep(block: bytes) -> None:
            content.write(block)

        await self._receive(request, limit, hold, keep)
        return content.getvalue()

    async def _receive(
        self, request: Request, limit: int, hold: _Hold, keep: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Give `keep` each block of a body, for which there is room. Raises Refused."""
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise Refused(415, f"A body with Content-Encoding {encoding[:40]!r} is not read. Send the file as it is.")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        received, more = 0, True
        with self._requests.within(BODY_SECONDS, Refused(408, f"The body did not come within {BODY_SECONDS:g} s.")):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The client went away.")
                block, more = message.get("body", b""), message.get("more_body", False)
                received += len(block)
                if received > limit:
                    raise _too_large(limit)
                hold.take(len(block))
                await keep(block)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()


def _too_large(limit: int) -> Refused:
    return Refused(413, f"The body has more than {limit:,} bytes, the most that the server takes (--max-megabytes).")
