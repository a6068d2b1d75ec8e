"""Who may ask: hosts, origins and the token; and what every answer forbids the browser.

An ASGI layer around the application; knows nothing of images.
"""

import hmac
import ipaddress
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from geodtr.runtime.serve.http.messages import as_json

COOKIE = "geodtr_session"
_OPEN = ("/healthz", "/login")
_PAGE = "/page/"
_HEADERS = Headers(
    {
        # Leaflet empties a square of the map that it no longer needs with a data: image.
        "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self'; object-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",  # with no-referrer, a browser's own login form would name no origin
        "Cross-Origin-Resource-Policy": "same-origin",
    }
).raw


class Guard:
    """Lets a request through to `app`, or answers it; `count` gets the scope and the status of every answer.

    Without a `token`, only names of this machine are answered to, so that a page of somebody else's cannot reach the
    server under a name of its own (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None, count: Callable[[Scope, int], object]) -> None:
        self._app, self._token, self._count = app, token, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
                self._count(scope, message["status"])
            await send(message)

        if scope["type"] != "http":
            return
        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def session(self, token: str) -> str | None:
        """The cookie of a page whose visitor knows the token; None for a wrong one."""
        return self._session() if self._token is not None and _same(token, self._token) else None

    def _refusal(self, request: Request) -> Response | None:
        path, headers = request.scope["path"], request.headers
        if self._token is None and not _is_this_machine(headers.get("host", "")):
            return as_json(
                {"error": "Ask for this server by its address or as localhost; other names need a token."}, 421
            )
        if not _same_origin(headers):
            return as_json({"error": "Pages of other servers may not ask here."}, 403)
        if self._token is None or path in _OPEN or path.startswith(_PAGE) or self._knows_token(request):
            return None
        given = request.query_params.get("token")
        if path == "/" and request.method == "GET":
            cookie = None if given is None else self.session(given)
            if cookie is None:
                return RedirectResponse("/login", 303)
            response: Response = RedirectResponse("/", 303)  # the token does not stay in the address
            set_cookie(response, cookie, secure=request.url.scheme == "https")
            return response
        refused = as_json({"error": "The token is missing or wrong. Send it: Authorization: Bearer TOKEN"}, 401)
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused

    def _knows_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._token is not None and _same(given.strip(), self._token)
        try:
            cookie = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._session())

    def _session(self) -> str:
        """Out of the token, which itself is not stored in any browser."""
        return hmac.new((self._token or "").encode(), b"geodtr page", sha256).hexdigest()


def set_cookie(response: Response, session: str, *, secure: bool) -> None:
    """Let the browser come back without the token; `secure`: over HTTPS alone."""
    response.set_cookie(COOKIE, session, httponly=True, samesite="lax", secure=secure, path="/")


def _same(given: str, wanted: str) -> bool:
    """Compare in a time that does not depend on what was given."""
    return hmac.compare_digest(sha256(given.encode("utf-8", "replace")).digest(), sha256(wanted.encode()).digest())


@lru_cache(maxsize=16)  # of every client the same few
def _is_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same_origin(headers: Headers) -> bool:
    """Browsers name the page that asks, where it could do harm; other clients name none."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") not in ("cross-site", "same-site") or headers.get("sec-fetch-mode") == (
            "navigate"
        )
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False
