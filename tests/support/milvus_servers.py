"""A Milvus server for the tests: the one that GEODTR_MILVUS names, or Milvus Lite started as a server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = os.environ.get("GEODTR_MILVUS")
"""Address of a real server for the tests of Milvus: milvus://HOST:PORT or milvus://HOST:PORT/DATABASE."""


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """The address of a server; a test appends the name of a collection."""
    if ADDRESS is not None:
        yield ADDRESS
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("milvus-lite")
    command = [str(program), "server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with (folder.parent / "server.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait_until_open(port)
            yield f"milvus://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait_until_open(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
