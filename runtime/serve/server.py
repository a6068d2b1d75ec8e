"""The server as a whole: what it opens, in which order, and how it ends.

from geodtr.runtime.serve.server import Request, Server

Server(Request(Path("bundle"), "gallery", ServeOptions()), print).run()
"""

import asyncio
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from geodtr.runtime.engines.base import DEFAULT_OPTIONS, EngineOptions
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.gallery.location import GalleryLocation
from geodtr.runtime.images.intake import Intake
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.serve.batching import Batcher
from geodtr.runtime.serve.current import Current
from geodtr.runtime.serve.http.app import Api, gallery_reply
from geodtr.runtime.serve.live import Live
from geodtr.runtime.serve.metrics import Metrics
from geodtr.runtime.serve.options import ServeOptions
from geodtr.runtime.serve.source import Source, Sourced

WARNING = Intake(mismatch="warn")
"""An image that the model was not made for is answered, with a warning."""
HEAD_SECONDS = 10.0
"""Longest time that the head of a request may take to come."""
_HEAD = 1 << 16
"""Bytes of a head at most."""
_AHEAD = 8
"""Requests that a client may send before it has the answer to an earlier one."""
_FINISHING = 30.0
"""Seconds that the server answers on when it ends; what is not answered then is refused."""
_LEAVING = 3.0
"""Seconds that clients have after that to take what was sent."""
_CONNECTIONS = 800
"""A process usually may have 1024 files open."""
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b'Content-Length: 43\r\n\r\n{"error": "Too many connections are open."}'
)


class _Patient(HttpToolsProtocol):
    """A connection whose client has HEAD_SECONDS for each request's head: one that sends nothing, or a byte now and
    then, is closed. So is one that sends more than _HEAD bytes of a head, or of what follows a body in chunks, and one
    that does not wait for answers: the parser would keep all of it.
    """

    _timer: asyncio.TimerHandle | None = None
    _overfull = False
    """Whether a request came that is too many: those before it are answered, and the connection is closed."""
    _unread = 0
    """Bytes that came since the end of a head, or since bytes of a body."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.write(_FULL)
            transport.close()
            return
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        if self._overfull:
            return
        self._unread += len(data)
        super().data_received(data)
        if self._unread > _HEAD + len(data):
            self.send_400_response("The head is too long.")
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._unread = 0
        if len(self.pipeline) == _AHEAD:
            self._overfull = True
            raise ValueError  # ends the parser, which answers 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._overfull:
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._overfull and not self.pipeline and self.cycle.response_complete:
            super().send_400_response("Too many requests were sent before their answers were read.")
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not answering and self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)


@dataclass(frozen=True, slots=True)
class Request:
    """What is served, and how images were taken."""

    bundle: Path
    gallery: GalleryLocation | Path | str
    options: ServeOptions
    sourced: Sourced | None = None
    engine: EngineOptions = DEFAULT_OPTIONS
    headings: int = 1
    intake: Intake = WARNING


class Server(uvicorn.Server):
    """A server that is opened and not yet running; `address` is where it listens.

    `run` returns when `stop` was called, or a signal came, and what was accepted is answered or, after _FINISHING
    seconds, refused; `unanswered` is how many images were. A second signal ends the process at once.
    """

    def __init__(self, request: Request, report: Callable[[str], object]) -> None:
        """Open everything. `report` gets one line of text for each thing that happens. Raises what opening a bundle and
        a gallery raises, and ConfigError where the port is taken.
        """
        options = request.options
        self._report, self._ending = report, False
        with ExitStack() as closes:
            self._socket = closes.enter_context(_listen(options.host, options.port))
            engine = replace(request.engine, spin=False)  # decoders and clients need the cores
            opened = partial(Localizer, options=engine, headings=request.headings, intake=request.intake)
            current = closes.enter_context(closing(Current(request.bundle, request.gallery, opened)))
            self.current, self.metrics = current, Metrics()
            self._batcher = batcher = closes.enter_context(closing(Batcher(current, self.metrics, options)))
            self.live = Live(self.metrics)
            closes.callback(self.live.end)
            if request.sourced is not None:
                source = closes.enter_context(closing(Source(request.sourced, current, batcher, self.live, report)))
            self._api = api = Api(current, batcher, self.live, self.metrics, options, report)

            def tell(changed: Current) -> None:
                report(changed.problem or changed.change)
                self.live.tell("gallery", gallery_reply(changed(), changed.problem))

            current.watch(tell)
            super().__init__(
                uvicorn.Config(
                    api.app(),
                    http=_Patient,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    log_level="error",  # what strangers send is not worth a line
                    access_log=False,
                    server_header=False,
                )
            )
            if request.sourced is not None:
                source.start()
            self._closes = closes.pop_all()
        host, port = self._socket.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def stop(self) -> None:
        """End soon; from any thread, or a handler of signals."""
        self.should_exit = True

    @property
    def unanswered(self) -> int:
        return self._api.unanswered

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        with self._signals(), self._closes:
            super().run(sockets or [self._socket])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.live.end()  # viewers would otherwise keep it waiting
        later = asyncio.get_running_loop().call_later
        timers = [later(_FINISHING, self._api.give_up), later(_FINISHING + _LEAVING, self._let_go)]
        try:
            await super().shutdown(sockets)
        finally:
            for timer in timers:
                timer.cancel()

    def _let_go(self) -> None:
        """Close the connections of clients that do not take their answers."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `run` has them, because closing takes time as well."""
        yield

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            self.stop()
            return
        left = self.unanswered or self._batcher.accepted
        try:
            self._report(f"Ended at once; accepted images that are not answered: {left}.")
        finally:
            os._exit(128 + number)  # an engine at work cannot be interrupted, and nothing here is half-written


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except PermissionError:
        raise ConfigError(
            f"Port {port} needs rights that this user does not have. Take one above 1023: --port"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} of {host} is taken by another program. Take another one: --port 0"
            ) from None
        raise ConfigError(f"{host}:{port} cannot be listened on ({error.strerror or error}). Correct --host.") from None
