"""A port of this machine that listens, for tests that nothing connects to it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread


class Listener:
    """`address` is where it listens, http://127.0.0.1:PORT; `requests` what was asked of it."""

    def __init__(self) -> None:
        self.requests = list[bytes]()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection:
                self.requests.append(connection.recv(200))
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener, closed in the end."""
    listener = Listener()
    try:
        yield listener
    finally:
        listener.close()
