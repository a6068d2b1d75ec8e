"""Places for galleries in Milvus: a file, and a server, the one of GEODTR_MILVUS or Milvus Lite started as a server.

GEODTR_MILVUS=milvus://HOST:PORT runs the tests against a server of one's own.
"""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_gallery import MADE_BY, TinyEmbedder, made_tiles

from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.location import MilvusLocation, as_location
from geodtr.runtime.gallery.manifest import GalleryManifest
from geodtr.runtime.names import Index

ADDRESS = os.environ.get("GEODTR_MILVUS")
"""Address of a real server for the tests of Milvus: milvus://HOST:PORT or milvus://HOST:PORT/DATABASE."""


@contextmanager
def _server(folder: Path) -> Iterator[str]:
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


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server; a test appends the name of a collection."""
    with _server(tmp_path_factory.mktemp("server") / "data") as address:
        yield address


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, milvus: str, tmp_path: Path) -> Iterator[str]:
    """A location without a gallery."""
    if request.param == "file":
        yield str(tmp_path / "map.db")
        return
    name = f"{milvus}/geodtr_{uuid.uuid4().hex}"
    yield name
    client = client_of(name)
    client.drop_collection(collection_of(name))
    client.close()


def client_of(place: str) -> Any:
    import pymilvus

    parsed = as_location(place)
    assert isinstance(parsed, MilvusLocation)
    return pymilvus.MilvusClient(parsed.address, db_name=parsed.database, token=os.environ.get("MILVUS_TOKEN", ""))


def collection_of(place: str) -> str:
    parsed = as_location(place)
    assert isinstance(parsed, MilvusLocation)
    return parsed.collection


def fill(place: str, count: int, index: Index = "flat") -> str:
    build_gallery(place, made_tiles(count), TinyEmbedder(), MADE_BY, index=index)
    return place


def begun(size: int, index: Index = "flat") -> GalleryManifest:
    return GalleryManifest(descriptor_size=size, storage="float32", index=index, source="made", made_by=MADE_BY)
