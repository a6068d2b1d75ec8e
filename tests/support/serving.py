"""A server on a free port of this machine, in a thread, and requests to it as bytes."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image

from geodtr.runtime.serve.options import ServeOptions
from geodtr.runtime.serve.server import Request, Server
from geodtr.runtime.serve.source import Sourced
from geodtr.runtime.spec import Images


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer; `json` of those that are."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """`reports` are the lines that an operator would see."""

    server: Server
    reports: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.server.address.rpartition(":")[2])

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = ""
    ) -> Answered:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answered(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def locate(self, image: bytes, query: str = "", **headers: str) -> Answered:
        return self.ask(f"/v1/locate{query}", image, {"Content-Type": "image/png", **headers})


@contextmanager
def serving(
    bundle: Path, gallery: Path, sourced: Sourced | None = None, port: int = 0, **options: Any
) -> Iterator[Running]:
    """A server that has ended, all answered, when the block is left."""
    reports = list[str]()
    request = Request(bundle, gallery, ServeOptions(port=port, **options), sourced)
    running = Running(Server(request, reports.append), reports)
    thread = Thread(target=running.server.run)
    thread.start()
    try:
        yield running
    finally:
        running.server.stop()
        thread.join(30)
        assert not thread.is_alive()


def png(pixels: Images, **how: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **how)
    return stream.getvalue()


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A body of multipart/form-data with these files, and its header."""
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in files
    ]
    return b"".join(parts) + b"--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


def until(met: Callable[[], object]) -> None:
    """Wait for a condition that a busy machine may meet late; an AssertionError after 20 s."""
    end = time.monotonic() + 20
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)
