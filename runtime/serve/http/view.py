"""What the live view's page asks for beside the answers: events, frames, tiles and the map's squares."""

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from geodtr.runtime.errors import ImageError
from geodtr.runtime.serve.current import Current, InUse
from geodtr.runtime.serve.live import Live
from geodtr.runtime.serve.requests import Refused

T = TypeVar("T")

_A_DAY, _NEVER = "private, max-age=86400", "no-store"


class View:
    """The endpoints of the page's pictures and events. Each raises Refused."""

    def __init__(self, current: Current, live: Live) -> None:
        self._current, self._live = current, live
        self._pictures = anyio.CapacityLimiter(2)

    async def stream(self, request: Request) -> Response:
        del request
        return _Events(self._live)

    async def frame(self, request: Request) -> Response:
        content = self._live.picture(_number(request, "number"))
        if content is None:
            raise Refused(404, "That frame is no longer kept; the last few are.")
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": _NEVER})

    async def tile(self, request: Request) -> Response:
        use, row = self._named_gallery(request), _number(request, "row")
        try:
            content = await self._picture(use.ground.tile, row)
        except IndexError:
            raise Refused(404, f"The gallery has no row {row}.") from None
        except ImageError:
            raise Refused(404, "The file of that tile cannot be read any more.") from None
        return Response(content, media_type="image/webp", headers={"Cache-Control": _A_DAY})

    async def square(self, request: Request) -> Response:
        use, place = self._named_gallery(request), [_number(request, name) for name in ("zoom", "x", "y")]
        content = await self._picture(use.ground.square, *place)
        if content is None:
            return Response(status_code=204, headers={"Cache-Control": _A_DAY})
        return Response(content, media_type="image/webp", headers={"Cache-Control": _A_DAY})

    def _named_gallery(self, request: Request) -> InUse:
        """The gallery in use. A page names the one that it means, so that its rows never are another's."""
        use = self._current()
        for name, value in request.query_params.multi_items():
            if name != "gallery" or not value.isascii() or not value.isdigit():
                raise Refused(400, "The only parameter is gallery, the number in an answer.")
            if value != str(use.number):
                raise Refused(404, f"Gallery {value[:20]} is no longer in use.")
        return use

    async def _picture(self, draw: Callable[..., T], *arguments: Any) -> T:
        return await anyio.to_thread.run_sync(draw, *arguments, limiter=self._pictures)


class _Events(StreamingResponse):
    """The live view's events for a viewer, who is let go when the answer ends, or breaks off. Raises Refused."""

    def __init__(self, live: Live) -> None:
        self._live, self._viewer = live, live.subscribe()
        headers = {"Cache-Control": _NEVER, "X-Accel-Buffering": "no"}
        super().__init__(live.events(self._viewer), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._live.leave(self._viewer)


def _number(request: Request, name: str) -> int:
    text: str = request.path_params[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(404, f"{name} is {text[:40]!r}; needed is a whole number of up to nine digits.")
    return int(text)
