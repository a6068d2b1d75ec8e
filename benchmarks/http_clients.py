"""Many HTTP clients in one thread, as cheap as they can be: their requests are bytes made beforehand.

python benchmarks/http_clients.py PORT --clients N --seconds N --together N IMAGES...    prints a Load as JSON

Each client sends its next request when its last one is answered. What was sent when the time is over is answered, and
counts. `--together`: images of a request; more than one are sent as a form.
"""

import argparse
import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_HEAD = "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
_PART = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="%d"\r\n\r\n%s\r\n'


@dataclass(frozen=True, slots=True)
class Load:
    """What clients saw: answered `images`, `seconds`, `cpu` seconds of their own, milliseconds until each request's
    answer, and requests by what became of them.
    """

    images: int
    seconds: float
    cpu: float
    latencies: list[float]
    statuses: dict[str, int]


@dataclass(slots=True)
class _Client:
    number: int
    socket: socket.socket
    sent: float = 0.0
    content: bytearray = field(default_factory=bytearray)

    def send(self, request: bytes) -> None:
        self.sent = time.perf_counter()
        self.content.clear()
        self.socket.sendall(request)

    def whole(self) -> bool:
        """Whether the answer has come as a whole."""
        end = self.content.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self.content[:end].lower() + b"\r\n"
        start = head.index(b"content-length:") + len(b"content-length:")
        return len(self.content) >= end + 4 + int(head[start : head.index(b"\r\n", start)])


def ask(port: int, images: Sequence[bytes], clients: int, seconds: float, together: int) -> Load:
    """Ask for so many seconds, or longer, until the last is answered."""
    requests = [_request(images, first, together) for first in range(len(images))]
    selector, latencies, statuses = selectors.DefaultSelector(), list[float](), Counter[str]()
    start, cpu = time.perf_counter(), time.process_time()
    for number in range(clients):
        client = _Client(number, socket.create_connection(("127.0.0.1", port)))
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(requests[number % len(requests)])
        selector.register(client.socket, selectors.EVENT_READ, client)
    while selector.get_map():
        for key, _ in selector.select():
            client = key.data
            block = client.socket.recv(1 << 18)
            client.content += block
            if block and not client.whole():
                continue
            answered = client.content.count(b'"candidates"') == together
            status = client.content[9:12].decode() if block else "closed"
            statuses[status if answered or status != "200" else "empty"] += 1
            latencies.append(1000 * (time.perf_counter() - client.sent))
            if not block or time.perf_counter() > start + seconds:
                selector.unregister(client.socket)
                client.socket.close()
            else:
                client.number += clients
                client.send(requests[client.number % len(requests)])
    taken = time.perf_counter() - start
    return Load(statuses["200"] * together, taken, time.process_time() - cpu, latencies, dict(statuses))


def _request(images: Sequence[bytes], first: int, together: int) -> bytes:
    if together == 1:
        path, kind, body = "/v1/locate", "application/octet-stream", images[first]
    else:
        path, kind = "/v1/locate/batch", "multipart/form-data; boundary=edge"
        parts = [_PART % (number, images[(first + number) % len(images)]) for number in range(together)]
        body = b"".join(parts) + b"--edge--\r\n"
    return _HEAD.format(path=path, kind=kind, length=len(body)).encode() + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--together", type=int, default=1)
    options: Any = parser.parse_args()
    images = [path.read_bytes() for path in options.images]
    print(json.dumps(asdict(ask(options.port, images, options.clients, options.seconds, options.together))))


if __name__ == "__main__":
    main()
