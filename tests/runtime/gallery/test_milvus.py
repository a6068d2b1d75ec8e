"""A gallery in Milvus, in a file and on a server: what it holds, its commands, and changes that are stopped or meet."""

import csv
import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkout import SUPPORT
from conftest import Outcome
from milvus_places import client_of, collection_of, fill
from PIL import Image
from tiny_bundle import write_bundle
from tiny_gallery import (
    MADE_BY,
    MadeTiles,
    TinyEmbedder,
    descriptors_of,
    made_tiles,
    pixels_of,
)
from tiny_world import make_world

from geodtr import Localizer, open_gallery
from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.build import add_to_gallery, build_gallery
from geodtr.runtime.gallery.registry import holds_gallery, verify_gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.sources.tile import Tile

pytest.importorskip("pymilvus", reason="Milvus is tested with pymilvus: pip install '.[milvus]'")


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
    fill(place, 20)
    client, collection = client_of(place), collection_of(place)
    client.load_collection(collection)
    rows = client.query(collection, filter="row >= 0", output_fields=["*"], limit=3)
    rows[0]["descriptor"] = (-np.array(rows[0]["descriptor"], np.float32)).tolist()
    rows[1]["lat"] = 47.0
    rows[2]["id"] = "another"
    client.upsert(collection, rows)
    client.close()
    verified = verify_gallery(place)
    assert {fault.id for fault in verified.faults} == {rows[0]["id"], rows[1]["id"], "another"}


def test_simultaneous_writers_add_each_tile_once(milvus: str) -> None:
    place = f"{milvus}/geodtr_{uuid.uuid4().hex}"
    fill(place, 5)
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
    client_of(place).drop_collection(collection_of(place))


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
