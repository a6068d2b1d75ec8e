"""Names of files that are not UTF-8, or that a terminal's encoding lacks: they are read, written and shown."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from PIL import Image
from program import PROGRAM, localize, run
from tiny_world import TinyWorld, make_world

NOT_UTF8 = b"caf\xe9\x1b[31m.png"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    world = make_world(tmp_path_factory.mktemp("names"), 2)
    world.photograph(world.bundle.parent / "photos/0.png", 0)
    return world


@pytest.fixture
def photo(tiny: TinyWorld, tmp_path: Path) -> Path:
    """A photograph whose name is not UTF-8 and holds an escape."""
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / os.fsdecode(NOT_UTF8)
    shutil.copy(tiny.bundle.parent / "photos/0.png", path)
    return path


def test_a_name_that_is_not_utf8_reaches_the_terminal(tiny: TinyWorld, photo: Path) -> None:
    message = run(*localize(tiny, photo), code=0)
    assert "caf\\xe9\\x1b[31m.png" in message
    assert "\x1b[31m" not in message


@pytest.mark.parametrize("suffix", [".jsonl", ".geojson", ".gpx", ".csv", ".png"])
def test_a_name_that_is_not_utf8_reaches_every_file(
    tiny: TinyWorld, photo: Path, tmp_path: Path, suffix: str, cli: Callable[..., Outcome]
) -> None:
    out = tmp_path / f"out{suffix}"
    result = cli(*localize(tiny, photo, "--picture" if suffix == ".png" else "--out", out))
    assert result.code == 0, result.err
    message = result.out + result.err
    assert "caf\\xe9\\x1b[31m.png" in message
    assert "\x1b[31m" not in message
    if suffix in (".jsonl", ".geojson"):
        document = json.loads(out.read_bytes().decode())
        image = document["image"] if suffix == ".jsonl" else document["features"][0]["properties"]["image"]
        assert os.fsencode(image) == os.fsencode(photo)
    if suffix == ".csv":
        assert NOT_UTF8 in out.read_bytes()
    if suffix == ".gpx":
        assert "caf\\xe9\\x1b[31m.png" in out.read_text("utf-8")
    if suffix == ".png":
        with Image.open(out) as picture:
            assert picture.width > 100


def test_embed_json_and_a_latin1_terminal_keep_such_names(tiny: TinyWorld, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npy"
    run("embed", tiny.bundle, photo.parent, "--branch", "ground", "--out", out, code=0)
    assert NOT_UTF8 in out.with_suffix(".csv").read_bytes()
    for encoding in ("utf-8", "latin-1"):
        words = [PROGRAM, *map(str, localize(tiny, photo, "--json"))]
        done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert os.fsencode(Path(json.loads(done.stdout)["image"]).name) == NOT_UTF8
    named = tmp_path / "Straße 北京.png"
    shutil.copy(photo, named)
    message = run(*localize(tiny, named), code=0, env={"PYTHONIOENCODING": "latin-1"})
    assert "\\u5317" in message


def test_a_latin1_locale_finds_the_names_of_a_list(tiny: TinyWorld, tmp_path: Path) -> None:
    if shutil.which("localedef") is None:
        pytest.skip("this system has no localedef")
    name = "en_US.ISO-8859-1"
    subprocess.run(["localedef", "-f", "ISO-8859-1", "-i", "en_US", tmp_path / name], capture_output=True, check=False)
    if not (tmp_path / name).is_dir():
        pytest.skip("the locale cannot be made here")
    shutil.copy(tiny.bundle.parent / "photos/0.png", tmp_path / "Straße 北京.png")
    (tmp_path / "list.txt").write_text("Straße 北京.png\n", "utf-8")
    out = tmp_path / "out.csv"
    locale = {"LOCPATH": str(tmp_path), "LC_ALL": name}
    run(*localize(tiny, f"@{tmp_path / 'list.txt'}", "--out", out), code=0, env=locale)
    assert "Straße 北京.png" in out.read_text("utf-8")


def test_a_gallery_refuses_a_tile_whose_name_is_not_utf8_by_name(
    tiny: TinyWorld, photo: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("gallery", "build", tiny.bundle, photo.parent, "--out", tmp_path / "g")
    assert "caf\\udce9\\x1b[31m.png" in message
    assert "a name is not UTF-8" in message
