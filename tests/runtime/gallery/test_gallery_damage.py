"""A damaged gallery answers correctly or names the damage: never a wrong answer, never a traceback."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gallery import (
    SIZE,
    build,
    descriptors_of,
    made_tiles,
)

from geodtr import UserError
from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.geodesy import Near
from geodtr.runtime.names import STORAGES, Storage
from geodtr.runtime.sources.tile import Tile

FILES = ("gallery.json", "references.sqlite", "descriptors-1.float32", "descriptors-1.float16", "descriptors-1.scales")
_INTACT: dict[Storage, Path] = {}


def copy_of_an_intact_one(factory: pytest.TempPathFactory, storage: Storage) -> Path:
    """A gallery of nine tiles that a test may damage; built once and copied."""
    if storage not in _INTACT:
        _INTACT[storage] = build(factory.mktemp("intact") / "gallery", made_tiles(9), storage)
    return shutil.copytree(_INTACT[storage], factory.mktemp("g") / "gallery")


@pytest.mark.parametrize(
    "name", ["gallery.json", "references.sqlite", "descriptors-1.float32", "descriptors-1.int8", "descriptors-1.scales"]
)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "missing"])
def test_a_damaged_gallery_is_refused_naming_the_file(tmp_path: Path, name: str, damage: str) -> None:
    path = build(tmp_path / "g", made_tiles(3), "int8")
    file = path / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7] if damage == "truncated" else b"")
    for use in (open_folder, FolderWriter):
        with pytest.raises(GalleryError, match=name):
            use(path)
    if name != "gallery.json":
        assert any(name in fault.what for fault in verify(path))


def test_a_gallery_of_an_older_schema_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(1))
    document = json.loads((path / "gallery.json").read_text())
    (path / "gallery.json").write_text(json.dumps({**document, "schema": 1}))
    with pytest.raises(GalleryError, match="schema 1"):
        open_folder(path)
    with pytest.raises(GalleryError, match="gallery build"):
        open_folder(tmp_path)


def test_missing_rows_of_a_file_are_named(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(5))
    file = path / "descriptors-1.float32"
    file.write_bytes(file.read_bytes()[: 3 * 4 * SIZE + 1])
    assert {fault.id for fault in verify(path)} == {None, "003", "004"}


@settings(max_examples=40, deadline=None)
@given(suffix=st.sampled_from(["float32", "int8", "scales"]), byte=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_verify_names_the_row_of_every_flipped_bit(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, byte: int, bit: int
) -> None:
    path = copy_of_an_intact_one(tmp_path_factory, "int8")
    file = path / f"descriptors-1.{suffix}"
    content = bytearray(file.read_bytes())
    byte %= len(content)
    content[byte] ^= 1 << bit
    file.write_bytes(content)
    row = byte // (len(content) // 9)
    assert [fault.id for fault in verify(path)] == [f"{row:03}"]


@pytest.mark.parametrize("where", ["row", "index"])
def test_verify_names_a_position_that_was_changed(tmp_path: Path, where: str) -> None:
    path = build(tmp_path / "g", made_tiles(9))
    file = path / "references.sqlite"
    content = file.read_bytes()
    place, other = (np.array(lat, ">f8").tobytes() for lat in (48 + 4 * 1e-4, 49.0))
    assert content.count(place) == 2
    if where == "row":
        file.write_bytes(content.replace(place, other, 1))
        assert "004" in [fault.id for fault in verify(path)]
    else:
        file.write_bytes(content[::-1].replace(place[::-1], other[::-1], 1)[::-1])
        assert "places" in verify(path)[0].what


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE removed SET slot = 4", "004"),
        ("UPDATE removed SET slot = 9", None),
        ("DELETE FROM removed", None),
        ("INSERT INTO removed VALUES (4)", "004"),
    ],
)
def test_verify_names_faults_of_removed_rows(tmp_path: Path, change: str, named: str | None) -> None:
    path = build(tmp_path / "g", made_tiles(9))
    with FolderWriter(path) as writer:
        writer.remove(["002"])
    assert verify(path) == ()
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        database.execute(change)
        database.commit()
    assert verify(path)[0].id == named


@pytest.mark.parametrize("storage", STORAGES)
def test_compacting_refuses_a_damaged_row_and_names_the_command_that_removes_it(
    tmp_path: Path, storage: Storage, cli: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    path = build(tmp_path / "g", made_tiles(9), storage)
    file = path / "descriptors-1.float32"
    content = bytearray(file.read_bytes())
    content[4 * 4 * SIZE + 3] ^= 0x40  # the top bit of the exponent of row 4's first value
    file.write_bytes(content)
    before = {file.name: file.read_bytes() for file in path.glob("descriptors-*")}
    message = refused("gallery", "compact", path)
    assert "'004'" in message
    assert f"gallery remove {path} 004" in message
    assert "gallery verify" in message
    assert {file.name: file.read_bytes() for file in path.glob("descriptors-*")} == before
    assert cli("gallery", "remove", path, "004").code == 0
    assert cli("gallery", "compact", path).code == 0
    assert verify(path) == ()
    with open_folder(path) as gallery:
        assert gallery.search(descriptors_of(["005"]), 1).rows.tolist() == [[4]]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(FILES),
    at=st.integers(0, 2**20),
    with_=st.binary(min_size=1, max_size=40),
    cut=st.booleans(),
)
def test_any_content_of_the_files_gives_an_answer_or_an_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, with_: bytes, cut: bool
) -> None:
    path = copy_of_an_intact_one(tmp_path_factory, "float16")
    content = bytearray((path / name).read_bytes())
    at %= len(content)
    content[at : at + len(with_)] = with_
    (path / name).write_bytes(content[: at + 1] if cut else content)
    query = descriptors_of(["004"])
    for use in (
        lambda gallery: gallery.search(query, 3),
        lambda gallery: gallery.search(query, 3, Near(48, 8, 50)),
        lambda gallery: list(gallery.all_tiles()),
        lambda gallery: gallery.info,
    ):
        try:
            with open_folder(path) as gallery:
                use(gallery)
        except UserError as error:
            assert str(path) in str(error)
    try:
        verify(path)
        with FolderWriter(path) as writer:
            writer.add([Tile("new", "new.png")], descriptors_of(["new"]))
    except UserError as error:
        assert str(path) in str(error)
