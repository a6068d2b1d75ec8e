"""From images to a gallery to a position, with the commands that a user types."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from maps import UTM, picture, write_map
from PIL import Image
from rasterio import Affine
from tiny_bundle import write_bundle
from tiny_gallery import build, made_tiles, pixels_of

from geodtr import open_gallery


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A folder of 70 tiles: more than two batches."""
    (tmp_path / "tiles").mkdir()
    for number in range(70):
        Image.fromarray(pixels_of(str(number))).save(tmp_path / "tiles" / f"{number:02}.png")
    return tmp_path / "tiles"


def test_a_folder_becomes_a_gallery_in_which_an_image_is_found(
    bundle: Path, tiles: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / "g"
    built = cli("gallery", "build", bundle, tiles, "--out", out, "--storage", "int8", "--json")
    assert json.loads(built.out) == {"embedded": 70, "held": 0, "left_out": []}
    info = json.loads(cli("gallery", "info", out, "--json").out)
    assert (info["references"], info["positioned"], info["finished"], info["source"]) == (70, 0, True, str(tiles))
    assert info["made_by"]["backend"].startswith("onnxruntime")
    image = tiles / "41.png"
    answer = json.loads(cli("localize", image, "--bundle", bundle, "--gallery", out, "--json").out)
    assert answer["candidates"][0]["file"] == str(image)
    assert answer["candidates"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert len(answer["candidates"]) == 5


def test_a_data_set_gives_its_positions(bundle: Path, tiles: Path, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    lines = [f"tiles/{n:02}.png,tiles/{n:02}.png,{48 + n / 1000},8.5" for n in range(10)]
    (tmp_path / "pairs.csv").write_text("\n".join(["ground,aerial,lat,lon", *lines]))
    assert cli("gallery", "build", bundle, f"pairs:{tmp_path}", "--out", tmp_path / "g").code == 0
    with open_gallery(tmp_path / "g") as gallery:
        np.testing.assert_allclose(gallery.lat, 48 + np.arange(10) / 1000)
    assert "48.003000" in cli("localize", tiles / "03.png", "--bundle", bundle, "--gallery", tmp_path / "g").out


def test_a_prefix_separates_two_maps_of_the_same_name(
    bundle: Path, tmp_path: Path, cli: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    for folder, north in (("north", 5_340_000), ("south", 5_330_000)):
        (tmp_path / folder).mkdir()
        write_map(tmp_path / folder / "map.tif", picture(300, 300), UTM, Affine(0.5, 0, 600_000, 0, -0.5, north))
    out, cut = tmp_path / "g", ("--tile-metres", 50)
    assert cli("gallery", "build", bundle, tmp_path / "north/map.tif", *cut, "--out", out).code == 0
    add = ("gallery", "add", bundle, out, tmp_path / "south/map.tif", *cut)
    message = refused(*add)
    assert "map.tif#0,0,100,100" in message
    assert "--id-prefix" in message
    for embedded, held in ((9, 0), (0, 9)):
        added = json.loads(cli(*add, "--id-prefix", "south/", "--json").out)
        assert (added["embedded"], added["held"]) == (embedded, held)
    assert cli("gallery", "verify", out).code == 0
    assert json.loads(cli("gallery", "remove", out, "south/*", "--json").out) == {"removed": 9, "references": 9}


def test_a_bad_tile_stops_a_build_which_resumes_or_leaves_it_out(
    bundle: Path, tiles: Path, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    intact = (tiles / "65.png").read_bytes()
    (tiles / "65.png").write_bytes(intact[:30])
    command = ("gallery", "build", bundle, tiles, "--out", tmp_path / "g")
    stopped = cli(*command)
    assert stopped.code == 2
    assert "65.png" in stopped.err
    assert "--on-error skip" in stopped.err
    assert "not finished" in cli("gallery", "info", tmp_path / "g").out
    located = cli("localize", tiles / "03.png", "--bundle", bundle, "--gallery", tmp_path / "g")
    assert "64 tiles" in located.err
    resumed = cli(*command, "--on-error", "skip", "--json")
    assert resumed.code == 0
    report = json.loads(resumed.out)
    assert (report["embedded"], report["held"]) == (5, 64)
    assert "65.png" in report["left_out"][0]
    (tiles / "65.png").write_bytes(intact)
    added = json.loads(cli("gallery", "add", bundle, tmp_path / "g", tiles, "--json").out)
    assert added == {"embedded": 1, "held": 69, "left_out": []}
    assert cli("gallery", "verify", tmp_path / "g").code == 0


def test_another_models_bundle_is_refused(
    bundle: Path, tiles: Path, tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome]
) -> None:
    other = write_bundle(tmp_path / "other", seed=1)
    cli("gallery", "build", bundle, tiles, "--out", tmp_path / "g")
    assert "gallery build" in refused("gallery", "add", other, tmp_path / "g", tiles)
    image = tiles / "00.png"
    assert "gallery build" in refused("localize", image, "--bundle", other, "--gallery", tmp_path / "g")
    assert "finished" in refused("gallery", "build", bundle, tiles, "--out", tmp_path / "g")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    assert "exists" in refused("gallery", "build", bundle, tiles, "--out", tmp_path / "mine")


def test_the_commands_inspect_a_gallery_and_change_it(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    path = build(tmp_path / "g", made_tiles(9), "int8")
    info = json.loads(cli("gallery", "info", path, "--json").out)
    assert (info["references"], info["positioned"], info["storage"]) == (9, 9, "int8")
    assert info["made_by"]["embedding_id"] in cli("gallery", "info", path).out
    assert json.loads(cli("gallery", "remove", path, "00[1-3]", "--json").out) == {"removed": 3, "references": 6}
    assert json.loads(cli("gallery", "compact", path, "--json").out) == {"references": 6, "freed": 3}
    assert cli("gallery", "verify", path).code == 0
    assert cli("gallery", "export", path, "--out", tmp_path / "g.csv").code == 0
    assert len((tmp_path / "g.csv").read_text().splitlines()) == 7
    file = path / "descriptors-2.float32"
    file.write_bytes(file.read_bytes()[:-1] + b"\x11")
    verified = cli("gallery", "verify", path, "--json")
    assert verified.code == 1
    assert [fault["id"] for fault in json.loads(verified.out)["faults"]] == ["008"]
    assert "FAILED" in cli("gallery", "verify", path).out


def test_a_refusal_is_one_sentence(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = build(tmp_path / "g", made_tiles(3))
    assert "no reference 'x'" in refused("gallery", "remove", path, "000", "x")
    assert ".parquet" in refused("gallery", "export", path, "--out", tmp_path / "g.txt")
    assert "gallery.json" in refused("gallery", "verify", tmp_path)
