"""The live view: what happens to the frames of a source, for all who watch.

One thread publishes; each viewer has a small box of events, whose oldest ones are dropped where it is slow. Knows
results; where frames come from is in source.py.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from threading import Lock
from typing import Any

import msgspec
from PIL import Image

from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.images.decode import encoded
from geodtr.runtime.serve.metrics import Metrics
from geodtr.runtime.serve.replies import FrameEvent, SourceReply, SourceState, State, TrailEvent
from geodtr.runtime.serve.requests import Refused

HEARTBEAT = 5.0
"""Seconds after which a viewer hears something, if only that there is nothing new: a link that went down is silent."""
_VIEWERS = 64
_WAITING = 16
"""Events that wait for a slow viewer."""
_TRAIL = 2000
_PICTURES = 32
_PICTURE = 640
_AGAIN = 10


class Viewer:
    """A box of events, filled by any thread and emptied by the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, first: list[bytes]) -> None:
        self._loop = loop
        self._box = deque(first, maxlen=_WAITING)
        self._filled = asyncio.Event()
        self._filled.set()

    def put(self, event: bytes) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._put, event)

    async def take(self) -> list[bytes]:
        """What has come; a heartbeat where nothing does."""
        try:
            await asyncio.wait_for(self._filled.wait(), HEARTBEAT)
        except asyncio.TimeoutError:
            return [_event("heartbeat", {})]
        events = list(self._box)
        self._box.clear()
        self._filled.clear()
        return events

    def wake(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._filled.set)

    def _put(self, event: bytes) -> None:
        self._box.append(event)
        self._filled.set()


class Live:
    """The state of the live view and its viewers. Safe to use from several threads.

    `top` is how many candidates of a frame viewers get.
    """

    def __init__(self, metrics: Metrics, *, top: int = 5) -> None:
        self.top = top
        self._metrics = metrics
        self._lock = Lock()
        self._viewers = set[Viewer]()
        self._ended = False
        self._source = SourceReply("", "none", None)
        self._last: tuple[FrameEvent, float] | None = None  # and when it was shown, by time.monotonic
        self._trail = deque[tuple[float, float, State]](maxlen=_TRAIL)
        self._pictures: OrderedDict[int, bytes] = OrderedDict()

    @property
    def source(self) -> SourceReply:
        return self._source

    def tell_source(self, name: str, state: SourceState, message: str | None = None) -> None:
        """The source has started, ended or been lost."""
        self._source = SourceReply(name, state, message)
        self._publish(_event("source", self._source))

    def tell(self, name: str, document: Any) -> None:
        """Something else that viewers need to know."""
        self._publish(_event(name, document))

    def show(self, event: FrameEvent) -> None:
        """A frame was localised."""
        self._metrics.frames.labels(event.state).inc()
        self._last = event, time.monotonic()
        self._publish(_event("frame", event))
        if event.lat is not None and event.lon is not None:
            with self._lock:
                self._trail.append((event.lat, event.lon, event.state))

    def keep(self, number: int, image: Image.Image) -> str:
        """Keep a frame's picture for a while; its address."""
        picture = encoded(image, "JPEG", _PICTURE)
        with self._lock:
            self._pictures[number] = picture
            if len(self._pictures) > _PICTURES:
                self._pictures.popitem(last=False)
        return f"/v1/frames/{number}"

    def picture(self, number: int) -> bytes | None:
        with self._lock:
            return self._pictures.get(number)

    def subscribe(self) -> Viewer:
        """A viewer, from the event loop. It gets what a newcomer needs and what happens from now on, until `leave`.
        Raises Refused.
        """
        with self._lock:
            if self._ended or len(self._viewers) >= _VIEWERS:
                raise Refused(503, f"{_VIEWERS} clients watch already, or the server ends.", _AGAIN)
            first = [_event("source", self._source), _event("trail", TrailEvent(list(self._trail)))]
            if self._last is not None:
                event, shown = self._last
                first.append(_event("frame", msgspec.structs.replace(event, age_s=time.monotonic() - shown)))
            viewer = Viewer(asyncio.get_running_loop(), first)
            self._viewers.add(viewer)
            self._metrics.viewers.set(len(self._viewers))
        return viewer

    def leave(self, viewer: Viewer) -> None:
        with self._lock:
            self._viewers.discard(viewer)
            self._metrics.viewers.set(len(self._viewers))

    async def events(self, viewer: Viewer) -> AsyncGenerator[bytes, None]:
        """What the viewer gets, as server-sent events."""
        while not self._ended:
            for event in await viewer.take():
                yield event

    def end(self) -> None:
        """Let go of all viewers; the server ends."""
        with self._lock:
            self._ended = True
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.wake()

    def _publish(self, event: bytes) -> None:
        with self._lock:
            viewers = [] if self._ended else list(self._viewers)
        for viewer in viewers:
            viewer.put(event)


def _event(name: str, document: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode_json(document))
