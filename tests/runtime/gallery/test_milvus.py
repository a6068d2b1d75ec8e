"""A gallery in Milvus gives the results of one in a folder, from a file and over the network, and names what it lacks.

GEODTR_MILVUS=milvus://HOST:PORT runs the same against a server of one's own.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import SUPPORT
from conftest import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from milvus_servers import ADDRESS, milvus_server
from PIL import Image
from tiny_bundle import write_bundle
from tiny_gallery import (
    MADE_BY,
    SIZE,
    MadeTiles,
    TinyEmbedder,
    build,
    descriptors_of,
    made_tiles,
    pixels_of,
    unit_rows,
)
from tiny_world import make_world

from geodtr import Localizer, open_gallery
from geodtr.runtime.errors import ConfigError, DataError, GalleryError, MissingDependency, OutputExists
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.build import add_to_gallery, begin_gallery, build_gallery
from geodtr.runtime.gallery.location import MilvusLocation, as_location
from geodtr.runtime.gallery.manifest import GalleryManifest
from geodtr.runtime.gallery.milvus.client import Collection
from geodtr.runtime.gallery.registry import change_gallery, holds_gallery, verify_gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.installation import install_hint
from geodtr.runtime.names import Index
from geodtr.runtime.sources.tile import Tile

pymilvus = pytest.importorskip("pymilvus", reason="Milvus is tested with pymilvus: pip install '.[milvus]'")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with milvus_server(tmp_path_factory.mktemp("server") / "data") as address:
        yield address


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, server: str, tmp_path: Path) -> Iterator[str]:
    """A location without a gallery."""
    if request.param == "file":
        yield str(tmp_path / "map.db")
        return
    name = f"{server}/geodtr_{uuid.uuid4().hex}"
    yield name
    client = _client(name)
    client.drop_collection(_collection(name))
    client.close()


def _client(place: str) -> Any:
    parsed = as_location(place)
    assert isinstance(parsed, MilvusLocation)
    return pymilvus.MilvusClient(parsed.address, db_name=parsed.database, token=os.environ.get("MILVUS_TOKEN", ""))


def _collection(place: str) -> str:
    parsed = as_location(place)
    assert isinstance(parsed, MilvusLocation)
    return parsed.collection


def _fill(place: str, count: int, index: Index = "flat") -> str:
    build_gallery(place, made_tiles(count), TinyEmbedder(), MADE_BY, index=index)
    return place


def _begun(size: int, index: Index = "flat") -> GalleryManifest:
    return GalleryManifest(descriptor_size=size, storage="float32", index=index, source="made", made_by=MADE_BY)


STRANGE = (
    Tile("plain", "plain.png"),
    Tile("quoted ' \" \\ %", 'dir\\file "x".png', 48.0, -0.0, -360.0, 1e-6, {"text": "a'b\"c\\", "n": 2**53}),
    Tile("日本/東京.png", "naïve\n\t.png", -90.0, 180.0, 0.1 + 0.2, 1e6, {"": [1, None, {"deep": 2.5}], "b": True}),
    Tile("row >= 0", "", 1e-300, -180.0, None, None, {}),
    Tile("x" * 60_000, "y" * 60_000, 89.99999999999999, 1e-17),
)


def test_the_contents_can_be_read_back(place: str) -> None:
    build_gallery(place, MadeTiles(STRANGE), TinyEmbedder(), MADE_BY)
    with open_gallery(place) as gallery:
        assert {tile.id: tile for tile in gallery.all_tiles()} == {tile.id: tile for tile in STRANGE}
        described = list(gallery.described())
        tiles = [tile for block, _ in described for tile in block]
        descriptors = np.concatenate([part for _, part in described])
        np.testing.assert_array_equal(descriptors, descriptors_of([tile.id for tile in tiles]))
        np.testing.assert_array_equal(gallery.lat, np.array([tile.lat for tile in tiles], np.float64))
        np.testing.assert_array_equal(gallery.lon, np.array([tile.lon for tile in tiles], np.float64))
        info = gallery.info
        assert (info.references, info.positioned, info.finished, info.source) == (5, 4, True, "made")
        assert info.index.startswith("FLAT of Milvus")
        hits = gallery.search(descriptors_of(["plain", "row >= 0"]), 3)
        assert [tile.id for tile in gallery.tiles(hits.rows[:, 0].tolist())] == ["plain", "row >= 0"]
    assert verify_gallery(place).faults == ()


@pytest.fixture(scope="module")
def twins(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, Gallery]]:
    """The same 300 tiles in a folder and on a server: at the antimeridian, at a pole, elsewhere, without a position."""
    random = np.random.default_rng(3)
    where = [(70, 179.9, 0.4), (89.9, 0.0, 90.0), (-5, 8.0, 0.2)]
    tiles = []
    for number in range(300):
        lat, lon, wide = where[number % 3]
        east = (lon + random.uniform(-wide, wide) + 180) % 360 - 180
        at = (min(90.0, lat + random.uniform(-0.1, 0.1)), east) if number % 10 else (None, None)
        tiles.append(Tile(f"{number:03}", f"{number}.png", *at))
    folder = tmp_path_factory.mktemp("twins") / "g"
    place = f"{server}/geodtr_{uuid.uuid4().hex}"
    build(folder, MadeTiles(tiles))
    build_gallery(place, MadeTiles(tiles), TinyEmbedder(), MADE_BY)
    with open_gallery(folder) as one, open_gallery(place) as other:
        yield one, other
    _client(place).drop_collection(_collection(place))


def _ids(gallery: Gallery, rows: Any) -> list[list[str]]:
    return [[tile.id for tile in gallery.tiles(each)] for each in rows.tolist()]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    queries=st.integers(1, 4),
    top=st.sampled_from([1, 2, 7, 40, 300, 500]),
    place=st.none() | st.sampled_from([(70.0, 179.99), (70.05, -179.8), (89.95, 100.0), (-5.0, 8.0), (0.0, 0.0)]),
    radius=st.floats(1.0, 40_000.0),
)
def test_a_search_has_the_results_of_a_folder(
    twins: tuple[Gallery, Gallery],
    seed: int,
    queries: int,
    top: int,
    place: tuple[float, float] | None,
    radius: float,
) -> None:
    folder, milvus = twins
    vectors = unit_rows(queries, SIZE, seed)
    near = None if place is None else Near(*place, radius)
    one, other = folder.search(vectors, top, near), milvus.search(vectors, top, near)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-6)
    assert _ids(milvus, other.rows) == _ids(folder, one.rows)


@pytest.mark.parametrize("near", [None, Near(70.0, 179.99, 40_000.0)])
@pytest.mark.parametrize("numbers", [range(100, 118), range(0, 300, 3), range(299), [7], []])
def test_few_rows_of_many_are_all_found(
    twins: tuple[Gallery, Gallery], monkeypatch: pytest.MonkeyPatch, numbers: Sequence[int], near: Near | None
) -> None:
    """Others are nearer than all that Milvus returns, and one request cannot list the rows."""
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.MOST_HITS", 40)
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.LISTED", 30)
    folder, milvus = twins
    rows = np.array(numbers, np.int64)
    ids = {tile.id for tile in folder.tiles(numbers)}
    keys = milvus.rows[[tile.id in ids for tile in milvus.all_tiles()]]
    vectors = unit_rows(3, SIZE, 1)
    one, other = folder.search(vectors, 12, near, rows), milvus.search(vectors, 12, near, keys)
    assert _ids(milvus, other.rows) == _ids(folder, one.rows)


@pytest.mark.parametrize("top", [1, 30, 40])
def test_a_prior_with_more_tiles_than_milvus_returns_is_searched_whole(
    twins: tuple[Gallery, Gallery], monkeypatch: pytest.MonkeyPatch, top: int
) -> None:
    """A circle has less than its box: of as many hits as Milvus returns of the box, too few are within."""
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.MOST_HITS", 40)
    monkeypatch.setattr("geodtr.runtime.gallery.milvus.reader.LISTED", 30)
    folder, milvus = twins
    vectors, near = unit_rows(3, SIZE, 1), Near(70.0, 179.9, 11_000.0)
    one, other = folder.search(vectors, top, near), milvus.search(vectors, top, near)
    assert one.rows.shape == (3, top)
    assert _ids(milvus, other.rows) == _ids(folder, one.rows)


@settings(max_examples=200, deadline=None)
@given(
    lat=st.floats(-90, 90) | st.sampled_from([90.0, -90.0, 89.999]),
    lon=st.floats(-180, 180) | st.sampled_from([180.0, -180.0]),
    radius=st.floats(1e-3, 3e7),
    seed=st.integers(0, 9),
)
def test_a_box_contains_everything_within_the_radius(lat: float, lon: float, radius: float, seed: int) -> None:
    near, random = Near(lat, lon, radius), np.random.default_rng(seed)
    box, spread = near.box, np.degrees(radius / 6.371e6)
    around = np.clip(lat + spread * random.uniform(-1, 1, 400), -90, 90)
    aside = (lon + spread * random.uniform(-1, 1, 400) / np.maximum(np.cos(np.radians(around)), 1e-6) + 180) % 360 - 180
    held = near.holds(around, aside)
    crossing = box.west > box.east
    beside = (aside >= box.west) | (aside <= box.east) if crossing else (aside >= box.west) & (aside <= box.east)
    assert ((around >= box.south) & (around <= box.north) & beside)[held].all()


def test_the_commands_work_on_it_as_on_a_folder(
    place: str, tmp_path: Path, cli: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    bundle, other = write_bundle(tmp_path / "tiny"), write_bundle(tmp_path / "other", seed=1)
    (tmp_path / "tiles").mkdir()
    for number in range(40):
        Image.fromarray(pixels_of(str(number))).save(tmp_path / "tiles" / f"{number:02}.png")
    tiles = tmp_path / "tiles"
    bad = tiles / "35.png"
    intact = bad.read_bytes()
    bad.write_bytes(intact[:30])
    command = ("gallery", "build", bundle, tiles, "--out", place)
    stopped = cli(*command)
    assert stopped.code == 2
    assert "35.png" in stopped.err
    assert "not finished" in cli("gallery", "info", place).out
    assert "32 tiles" in cli("localize", tiles / "03.png", "--bundle", bundle, "--gallery", place).err
    resumed = json.loads(cli(*command, "--on-error", "skip", "--json").out)
    assert (resumed["embedded"], resumed["held"], len(resumed["left_out"])) == (7, 32, 1)
    bad.write_bytes(intact)
    assert json.loads(cli("gallery", "add", bundle, place, tiles, "--json").out)["embedded"] == 1
    answer = json.loads(cli("localize", bad, "--bundle", bundle, "--gallery", place, "--json").out)
    assert answer["candidates"][0]["tile"] == "35.png"
    assert answer["candidates"][0]["score"] == pytest.approx(1, abs=1e-5)
    info = cli("gallery", "info", place)
    assert "40 tiles, 0 with a position" in info.out
    assert "index FLAT of Milvus" in info.out
    verified = cli("gallery", "verify", place)
    assert verified.code == 0
    assert "100.00 % of the 10 nearest" in verified.out
    assert "gallery build" in refused("localize", bad, "--bundle", other, "--gallery", place)
    assert "gallery build" in refused("gallery", "add", other, place, tiles)
    assert "finished" in refused(*command)
    assert json.loads(cli("gallery", "remove", place, "0[1-3].png", "39.png", "--json").out)["references"] == 36
    assert "nothing was removed" in refused("gallery", "remove", place, "04.png", "zz")
    assert "by itself" in refused("gallery", "compact", place)
    assert cli("gallery", "export", place, "--out", tmp_path / "g.csv").code == 0
    with (tmp_path / "g.csv").open(newline="") as stream:
        assert len({row["id"] for row in csv.DictReader(stream)}) == 36
    assert cli("gallery", "verify", place).code == 0


def test_a_calibration_is_stored_with_the_gallery(place: str, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    tiny = make_world(tmp_path)
    names = ["ground", "aerial", "lat", "lon"]
    rows = [
        (f"ground/{row}.png", f"tiles/{row:03d}.png", tiny.lat[row], tiny.lon[row]) for row in range(len(tiny.tiles))
    ]
    for row in range(len(rows)):
        tiny.photograph(tmp_path / "ground" / f"{row}.png", row)
    with (tmp_path / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([names, *rows])
    data = f"pairs:{tmp_path}"
    assert cli("gallery", "build", tiny.bundle, data, "--out", place).code == 0
    calibrated = cli("gallery", "calibrate", tiny.bundle, place, "--data", data)
    assert calibrated.code == 0, calibrated.err
    image = tmp_path / "ground" / "3.png"
    answer = json.loads(cli("localize", image, "--bundle", tiny.bundle, "--gallery", place, "--json").out)
    assert answer["within_95_m"]
    assert answer["candidates"][0]["tile"] == "tiles/003.png"
    near = f"{tiny.lat[3]},{tiny.lon[3]},60"
    command = ("localize", image, "--bundle", tiny.bundle, "--gallery", place, "--near", near, "--top", 9, "--json")
    with Localizer.open(tiny.bundle, tiny.gallery) as folder:
        expected = folder.locate(image, 9, near=Near(tiny.lat[3], tiny.lon[3], 60)).candidates
    names = [each["tile"] for each in json.loads(cli(*command).out)["candidates"]]
    assert names == [f"tiles/{each.place.id}" for each in expected]


def test_verify_names_rows_that_another_program_changed(place: str) -> None:
    _fill(place, 20)
    client, collection = _client(place), _collection(place)
    client.load_collection(collection)
    rows = client.query(collection, filter="row >= 0", output_fields=["*"], limit=3)
    rows[0]["descriptor"] = (-np.array(rows[0]["descriptor"], np.float32)).tolist()
    rows[1]["lat"] = 47.0
    rows[2]["id"] = "another"
    client.upsert(collection, rows)
    client.close()
    verified = verify_gallery(place)
    assert {fault.id for fault in verified.faults} == {rows[0]["id"], rows[1]["id"], "another"}


def test_an_index_that_is_not_exact_is_measured(place: str) -> None:
    with begin_gallery(place, _begun(32, "hnsw")) as writer:
        tiles = [Tile(f"{number}", "made.png") for number in range(1000)]
        writer.add(tiles, unit_rows(1000, 32, 0))
        writer.finish()
    verified = verify_gallery(place)
    assert verified.faults == ()
    assert verified.recall is not None
    assert (verified.recall.index, verified.recall.top, verified.recall.queries) == ("HNSW", 10, 100)
    assert 0.5 < verified.recall.found <= 1


def test_simultaneous_writers_add_each_tile_once(server: str) -> None:
    place = f"{server}/geodtr_{uuid.uuid4().hex}"
    _fill(place, 5)
    failures = list[BaseException]()

    def add(first: int) -> None:
        source = made_tiles(60)
        source.tiles = source.tiles[first : first + 40]
        try:
            add_to_gallery(place, source, TinyEmbedder(), MADE_BY.embedding_id)
        except GalleryError as error:
            # The other writer added this batch first, with the same content.
            failures.append(error)

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("holds a tile" in str(error) for error in failures)
    add_to_gallery(place, made_tiles(60), TinyEmbedder(), MADE_BY.embedding_id)
    with open_gallery(place) as gallery:
        assert sorted(tile.id for tile in gallery.all_tiles()) == [f"{number:03}" for number in range(60)]
    assert verify_gallery(place).faults == ()
    _client(place).drop_collection(_collection(place))


@pytest.mark.slow
def test_a_killed_build_resumes_with_everything_it_confirmed(tmp_path: Path) -> None:
    place = tmp_path / "map.db"
    script = (
        "import sys, time\n"
        "from tiny_gallery import *\n"
        "from geodtr.runtime.gallery.build import begin_gallery\n"
        "begun = GalleryManifest(descriptor_size=SIZE, storage='float32', source='made', made_by=MADE_BY)\n"
        "tiles = made_tiles(1000).tiles\n"
        f"with begin_gallery({str(place)!r}, begun) as writer:\n"
        "    for start in range(0, 1000, 5):\n"
        "        part = tiles[start:start + 5]\n"
        "        writer.add(part, descriptors_of([tile.id for tile in part]))\n"
        "        print(start + 5, flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=SUPPORT, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout is not None
        for _ in range(12):
            confirmed = int(writing.stdout.readline())
        writing.send_signal(signal.SIGKILL)
    with open_gallery(place) as gallery:
        assert confirmed <= len(gallery) < 1000
        assert not gallery.info.finished
    added = build_gallery(place, made_tiles(1000), TinyEmbedder(), MADE_BY)
    assert added.held >= confirmed
    assert added.embedded + added.held == 1000
    assert verify_gallery(place).faults == ()


def test_a_build_that_kept_nothing_leaves_nothing(place: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot be decoded"):
        build_gallery(place, made_tiles(3, broken={"000"}), TinyEmbedder(), MADE_BY)
    assert not holds_gallery(place)
    assert not (tmp_path / "map.db").exists()


def test_features_that_milvus_lacks_are_refused_by_name(place: str, tmp_path: Path) -> None:
    source, embedder = made_tiles(3), TinyEmbedder()
    with pytest.raises(ConfigError, match="int8"):
        build_gallery(place, source, embedder, MADE_BY, storage="int8")
    with pytest.raises(ConfigError, match="searched exactly"):
        build_gallery(tmp_path / "folder", source, embedder, MADE_BY, index="hnsw")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="65,535"):
        build_gallery(place, MadeTiles([Tile("é" * 40_000, "long.png")]), embedder, MADE_BY)
    _fill(place, 3)
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


def _remove(place: str, *ids: str) -> None:
    with change_gallery(place) as writer:
        writer.remove(ids)


def test_results_of_a_search_can_be_read_after_another_process_removed_them(place: str) -> None:
    _fill(place, 30)
    with open_gallery(place) as gallery:
        hits = gallery.search(descriptors_of(["004", "011"]), 5)
        _remove(place, "004", "011")
        assert [ids[0] for ids in _ids(gallery, hits.rows)] == ["004", "011"]
        assert not {"004", "011"} & {name for ids in _ids(gallery, hits.rows[:, 1:]) for name in ids}
        again = gallery.search(descriptors_of(["004", "011"]), 28)
        assert not {"004", "011"} & {name for ids in _ids(gallery, again.rows) for name in ids}


def test_tiles_removed_during_a_search_are_not_found(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(place, 30)
    search = Collection.search

    def search_and_remove(self: Collection, *arguments: Any) -> Any:
        results = search(self, *arguments)
        _remove(place, "004")
        return results

    with open_gallery(place) as gallery:
        monkeypatch.setattr(Collection, "search", search_and_remove)
        hits = gallery.search(descriptors_of(["004"]), 5)
        assert hits.rows.shape == (1, 4)
        assert "004" not in _ids(gallery, hits.rows)[0]


def test_a_graph_index_returns_everything_within_a_small_prior(place: str) -> None:
    with begin_gallery(place, _begun(64, "hnsw")) as writer:
        writer.add(made_tiles(3000).tiles, unit_rows(3000, 64, 0))
        writer.finish()
    with open_gallery(place) as gallery:
        hits = gallery.search(unit_rows(64, 64, 5), 10, Near(48.1, 8.0, 30))
        assert hits.rows.shape == (64, 5)


def test_a_gallery_without_positions_is_not_searched_near_one(place: str) -> None:
    build_gallery(place, MadeTiles([Tile("a", "a.png"), Tile("b", "b.png")]), TinyEmbedder(), MADE_BY)
    with open_gallery(place) as gallery, pytest.raises(GalleryError, match="no positions"):
        gallery.search(unit_rows(1, SIZE, 0), 1, Near(0, 0, 10))


def test_an_empty_gallery_finds_nothing(place: str) -> None:
    _fill(place, 0)
    with open_gallery(place) as gallery:
        assert gallery.search(unit_rows(2, SIZE, 0), 3).rows.shape == (2, 0)
        assert gallery.lat.shape == (0,)
    assert verify_gallery(place).faults == ()


def test_a_collection_of_another_program_is_not_touched(place: str) -> None:
    client = _client(place)
    client.create_collection(_collection(place), dimension=8)
    client.close()
    for use in (open_gallery, verify_gallery, change_gallery):
        with pytest.raises(GalleryError, match="no gallery"):
            use(place)
    with pytest.raises(OutputExists, match="did not make"):
        _fill(place, 3)


def test_a_missing_collection_is_named(server: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused("gallery", "info", f"{server}/nothing_here")
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


@pytest.mark.skipif(ADDRESS is not None, reason="of Milvus Lite")
def test_a_file_that_another_process_has_open_is_reported(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    place = _fill(str(tmp_path / "map.db"), 3)
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
                _fill(str(tmp_path / "map.db"), 3)
