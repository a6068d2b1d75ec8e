"""A gallery in Milvus names what it lacks, what is not its own, and a place where there is none."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from conftest import Outcome
from milvus_places import ADDRESS, client_of, collection_of, fill
from PIL import Image
from tiny_bundle import write_bundle
from tiny_gallery import (
    MADE_BY,
    SIZE,
    MadeTiles,
    TinyEmbedder,
    made_tiles,
    pixels_of,
    unit_rows,
)

from geodtr import open_gallery
from geodtr.runtime.errors import ConfigError, DataError, GalleryError, MissingDependency, OutputExists
from geodtr.runtime.gallery.build import add_to_gallery, build_gallery
from geodtr.runtime.gallery.location import MilvusLocation, as_location
from geodtr.runtime.gallery.milvus.connection import explained
from geodtr.runtime.gallery.registry import change_gallery, verify_gallery
from geodtr.runtime.installation import install_hint
from geodtr.runtime.sources.tile import Tile

pytest.importorskip("pymilvus", reason="Milvus is tested with pymilvus: pip install '.[milvus]'")


def test_features_that_milvus_lacks_are_refused_by_name(place: str, tmp_path: Path) -> None:
    source, embedder = made_tiles(3), TinyEmbedder()
    with pytest.raises(ConfigError, match="int8"):
        build_gallery(place, source, embedder, MADE_BY, storage="int8")
    with pytest.raises(ConfigError, match="searched exactly"):
        build_gallery(tmp_path / "folder", source, embedder, MADE_BY, index="hnsw")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="65,535"):
        build_gallery(place, MadeTiles([Tile("é" * 40_000, "long.png")]), embedder, MADE_BY)
    fill(place, 3)
    with open_gallery(place) as gallery:
        with pytest.raises(GalleryError, match="16,384"):
            gallery.search(unit_rows(1, SIZE, 0), 20_000)
        with pytest.raises(GalleryError, match=r"\[Q, 16\]"):
            gallery.search(unit_rows(1, SIZE + 1, 0), 1)
        with pytest.raises(GalleryError, match="not finite"):
            gallery.search(np.full((1, SIZE), np.nan, np.float32), 1)
        with pytest.raises(ConfigError, match="at least 1"):
            gallery.search(unit_rows(1, SIZE, 0), 0)
        with pytest.raises(IndexError, match="no row 7"):
            gallery.tiles([7])
    changed = made_tiles(3)
    changed.tiles = [Tile("000", "elsewhere.png", 1.0, 2.0)]
    with pytest.raises(GalleryError, match="gallery remove"):
        add_to_gallery(place, changed, embedder, MADE_BY.embedding_id)
    with pytest.raises(OutputExists, match="gallery add"):
        build_gallery(place, source, embedder, MADE_BY)


def test_a_collection_of_another_program_is_not_touched(place: str) -> None:
    client = client_of(place)
    client.create_collection(collection_of(place), dimension=8)
    client.close()
    for use in (open_gallery, verify_gallery, change_gallery):
        with pytest.raises(GalleryError, match="no gallery"):
            use(place)
    with pytest.raises(OutputExists, match="did not make"):
        fill(place, 3)


def test_a_missing_collection_is_named(milvus: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused("gallery", "info", f"{milvus}/nothing_here")
    assert "no collection 'nothing_here'" in message
    assert "gallery build" in message
    assert "holds no gallery" in refused("gallery", "info", tmp_path / "none.db")
    (tmp_path / "thesis.db").mkdir()
    (tmp_path / "thesis.db" / "thesis.tex").write_text("precious")
    assert "did not make" in refused("gallery", "info", tmp_path / "thesis.db")
    (tmp_path / "old.db").write_bytes(b"SQLite format 3")
    assert "is a file" in refused("gallery", "info", tmp_path / "old.db")
    assert "not a folder" in refused(
        "gallery", "build", write_bundle(tmp_path / "b"), _one_tile(tmp_path), "--out", tmp_path / "no" / "map.db"
    )


def _one_tile(root: Path) -> Path:
    (root / "tiles").mkdir()
    Image.fromarray(pixels_of("0")).save(root / "tiles" / "0.png")
    return root / "tiles"


def test_a_server_that_does_not_answer_is_reported_soon(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("geodtr-export")
    began = time.monotonic()
    command = [str(program), "gallery", "info", "milvus://127.0.0.1:1/map"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert time.monotonic() - began < 60
    assert done.returncode == 2
    assert "no Milvus server answers" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_busy_server_is_not_taken_for_a_missing_one() -> None:
    grpc = pytest.importorskip("grpc")
    done = Event()

    def slow(*_: object) -> bytes:
        done.wait(30)
        return b""

    handlers = {"Query": grpc.unary_unary_rpc_method_handler(slow)}
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, (grpc.method_handlers_generic_handler("busy", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            place = as_location(f"milvus://127.0.0.1:{port}/map")
            assert isinstance(place, MilvusLocation)
            with (
                grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
                pytest.raises(GalleryError, match=r"has not answered in time.*goes on"),
                explained(place),
            ):
                channel.unary_unary("/busy/Query")(b"", timeout=0.5)
        finally:
            done.set()
            server.stop(None)


@pytest.mark.skipif(ADDRESS is not None, reason="of Milvus Lite")
def test_a_file_that_another_process_has_open_is_reported(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    place = fill(str(tmp_path / "map.db"), 3)
    holds = (
        "import sys; from geodtr.runtime.gallery.registry import open_gallery\n"
        f"with open_gallery({place!r}): print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        result = cli("gallery", "info", place)
        other.kill()
    assert result.code == 2
    assert "another process" in result.err
    assert cli("gallery", "info", place).code == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("milvus://user:secret@host/map", "MILVUS_TOKEN"),
        ("http://host/map", "milvus://HOST"),
        ("milvus://host", "COLLECTION"),
        ("milvus://host/a/b/c", "COLLECTION"),
        ("milvus://host/1map", "no digit first"),
        ("milvus://host/map?x=1", "COLLECTION"),
        ("milvus://host:port/map", "no address"),
        ("milvus://host:70000/map", "no address"),
        ("milvus:///map", "COLLECTION"),
    ],
)
def test_an_invalid_address_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as refusal:
        as_location(text)
    assert "secret" not in str(refusal.value)


def test_addresses_name_server_database_and_collection() -> None:
    def read(text: str) -> tuple[str, str, str]:
        place = as_location(text)
        assert isinstance(place, MilvusLocation)
        assert str(place) == text
        return place.address, place.database, place.collection

    assert read("milvus://host/map") == ("http://host:19530", "", "map")
    assert read("milvus://host:1/db/map") == ("http://host:1", "db", "map")
    assert read("milvus+https://host/map") == ("https://host:443", "", "map")
    assert read("milvus://[::1]:19530/map") == ("http://[::1]:19530", "", "map")
    assert read("maps/town.db") == ("maps/town.db", "", "gallery")


def test_without_pymilvus_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pymilvus", "milvus_lite"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, module, None)
            with pytest.raises(MissingDependency, match=re.escape(install_hint("milvus"))):
                fill(str(tmp_path / "map.db"), 3)
