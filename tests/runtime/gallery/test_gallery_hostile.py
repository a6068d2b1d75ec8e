"""A gallery or bundle that somebody else prepared: nothing outside it is touched, and nothing hangs."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from checkout import SUPPORT
from tiny_bundle import write_bundle
from tiny_gallery import build, descriptors_of, made_tiles

from geodtr import open_bundle, open_gallery
from geodtr.runtime.errors import BundleError, GalleryError
from geodtr.runtime.gallery.folder import opening
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.sources.tile import Tile


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def listen(path: Path, _outside: Path) -> None:
    # An address may not be as long as a path; it is relative to where the process is.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "link": link,
    "folder": lambda path, _: path.mkdir(),
    "pipe": lambda path, _: os.mkfifo(path),
    "socket": listen,
    "device": lambda path, _: path.symlink_to("/dev/zero"),
}
OURS = ("gallery.json", "references.sqlite", "references.sqlite-wal", "descriptors-1.float32", "descriptors-1.scales")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*OURS, "writer.lock", "descriptors-2.float32"])
def test_what_is_no_file_in_a_gallery_is_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    path, outside = build(tmp_path / "g", made_tiles(3), "int8"), tmp_path / "outside"
    if (path / name).exists():
        shutil.copy(path / name, outside)
        (path / name).unlink()
    outside.touch()
    before = outside.read_bytes()
    KINDS[kind](path / name, outside)
    with pytest.raises(GalleryError, match=name), FolderWriter(path) as writer:
        writer.compact()
    if name in OURS:
        with pytest.raises(GalleryError, match=name):
            open_folder(path)
        with suppress(GalleryError):  # as where there is no gallery
            assert any(name in fault.what for fault in verify(path))
    assert outside.read_bytes() == before
    assert (path / name).is_symlink() == (kind in ("link", "device"))


def test_a_calibration_is_neither_read_nor_written_through_a_link(tmp_path: Path) -> None:
    path, outside = build(tmp_path / "g", made_tiles(3)), tmp_path / "outside"
    outside.write_bytes(b"mine")
    (path / "fixes.json").symlink_to(outside)
    with open_gallery(path) as gallery:
        with pytest.raises(GalleryError, match=r"fixes\.json"):
            gallery.attached("fixes.json")
        with pytest.raises(GalleryError, match=r"fixes\.json"):
            gallery.attach("fixes.json", b"{}")
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["manifest.json", "ground.onnx"])
def test_what_is_no_file_in_a_bundle_is_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    shutil.move(bundle / name, tmp_path / "outside")
    KINDS[kind](bundle / name, tmp_path / "outside")
    with pytest.raises(BundleError, match=name):
        open_bundle(bundle)


ENDLESS = "WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless) SELECT n AS slot FROM endless"


@pytest.mark.parametrize(
    "change",
    [
        f"DROP TABLE removed; CREATE VIEW removed AS {ENDLESS}",
        f"ALTER TABLE reference RENAME TO old; CREATE VIEW reference AS {ENDLESS}",
        "CREATE TABLE more (a)",
        "CREATE TRIGGER again AFTER INSERT ON reference BEGIN DELETE FROM reference; END",
        "CREATE INDEX heavy ON reference (hex(zeroblob(1000)))",
        "DROP TRIGGER keep_slot",
        "ALTER TABLE state ADD COLUMN big GENERATED ALWAYS AS (hex(zeroblob(1000000000)))",
        "CREATE VIRTUAL TABLE words USING fts5(a)",
    ],
)
def test_a_table_with_anything_of_another_s_in_it_is_refused(tmp_path: Path, change: str) -> None:
    path = build(tmp_path / "g", made_tiles(3))
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        database.executescript(change)
    for use in (open_folder, FolderWriter):
        with pytest.raises(GalleryError, match="tables are not a gallery's"):
            use(path)
    assert any("tables are not a gallery's" in fault.what for fault in verify(path))


def test_pages_that_name_each_other_end_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_DEADLINE", 0.5)
    path = build(tmp_path / "g", made_tiles(300))
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'reference'").fetchone()
    content = bytearray((path / "references.sqlite").read_bytes())
    start = (root - 1) * 4096
    assert content[start] == 5  # an inner page of a table: cells of a page's number and a key
    (children,) = np.frombuffer(content, ">u2", 1, start + 3)
    first = int.from_bytes(content[start + 12 : start + 14], "big")
    leaf = int.from_bytes(content[start + first : start + first + 4], "big")
    # Twelve levels, in each of which every child is the same next page.
    copies = [len(content) // 4096 + 1 + level for level in range(12)]
    for level, page in enumerate([root, *copies]):
        inner = bytearray(content[start : start + 4096])
        following = copies[level] if level < len(copies) else leaf
        for cell in range(children):
            place = int.from_bytes(inner[12 + 2 * cell : 14 + 2 * cell], "big")
            inner[place : place + 4] = following.to_bytes(4, "big")
        inner[8:12] = following.to_bytes(4, "big")
        content[(page - 1) * 4096 : page * 4096] = inner
    content[28:32] = (len(content) // 4096).to_bytes(4, "big")
    (path / "references.sqlite").write_bytes(content)
    with pytest.raises(GalleryError, match=r"references\.sqlite"):
        FolderWriter(path)
    with open_folder(path) as gallery, pytest.raises(GalleryError, match="do not belong to the descriptors"):
        assert gallery.lat.size
    assert any("references.sqlite" in fault.what for fault in verify(path))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 sets SQLite no limits")
def test_a_row_longer_than_16_mb_is_neither_kept_nor_read(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(3))
    with FolderWriter(path) as writer, pytest.raises(GalleryError, match="16,777,216"):
        writer.add([Tile("long", "x" * (1 << 24))], descriptors_of(["long"]))
    assert verify(path) == ()
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        database.execute("UPDATE reference SET file = ? WHERE id = '001'", ("x" * (1 << 25),))
        database.commit()
    with open_folder(path) as gallery, pytest.raises(GalleryError, match=r"references\.sqlite"):
        gallery.tile(1)


def without_checksums(path: Path) -> Path:
    """As an earlier version wrote it."""
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        database.execute("DROP TABLE checksums")
        database.execute("DROP INDEX places")
    return path


def test_a_gallery_of_an_earlier_version_opens_and_its_first_writer_adds_checksums_and_the_index(
    tmp_path: Path,
) -> None:
    path = without_checksums(build(tmp_path / "g", made_tiles(3), "int8"))
    shutil.copy(path / "descriptors-1.int8", path / "descriptors-2.int8")
    with open_folder(path) as gallery:
        assert len(gallery) == 3
    assert verify(path) == ()
    with FolderWriter(path) as writer:
        writer.add([Tile("new", "new.png")], descriptors_of(["new"]))
    # By a state without a checksum, nobody knows that the file is not needed.
    assert (path / "set-aside-descriptors-2.int8").exists()
    assert verify(path) == ()
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        assert database.execute("SELECT 1 FROM sqlite_master WHERE name = 'places'").fetchone()
        database.execute("UPDATE state SET slots = 3")
        database.commit()
    with pytest.raises(GalleryError, match="not as written"):
        FolderWriter(path)


@pytest.mark.parametrize("change", ["slots = 244", "generation = 3", "generation = 0", "slots = 1 << 62"])
@pytest.mark.parametrize("checksums", [True, False])
def test_no_writer_believes_a_state_that_was_changed(tmp_path: Path, checksums: bool, change: str) -> None:
    path = build(tmp_path / "g", made_tiles(500))
    if not checksums:
        without_checksums(path)
    before = (path / "descriptors-1.float32").read_bytes()
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        database.execute(f"UPDATE state SET {change}")
        database.commit()
    with pytest.raises(GalleryError):
        FolderWriter(path)
    assert verify(path)
    assert (path / "descriptors-1.float32").read_bytes() == before


def test_a_writer_deletes_nothing_that_no_writer_made(tmp_path: Path) -> None:
    path = build(tmp_path / "g", made_tiles(3))
    for name in ("descriptors-7.float32", "descriptors-1.notes"):
        (path / name).write_text("mine")
    (path / "descriptors-2.float32").write_text("of a compaction that was killed")
    with FolderWriter(path) as writer:
        writer.remove(["000"])
        assert not (path / "descriptors-2.float32").exists()
        (path / "descriptors-2.float32").write_text("of one whose end failed")
        writer.compact()
    assert {file.name for file in path.glob("descriptors-*")} == {
        "descriptors-1.notes",
        "descriptors-2.float32",
        "descriptors-7.float32",
    }
    (path / "notes.txt").write_text("mine")
    with FolderWriter(path) as writer:
        writer.discard()
    assert {file.name for file in path.iterdir()} == {"descriptors-1.notes", "descriptors-7.float32", "notes.txt"}


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_a_descriptor_file_cut_under_a_reader_ends_in_an_error(tmp_path: Path, storage: str) -> None:
    program = f"""
import os, sys
from pathlib import Path
from tiny_gallery import build, descriptors_of, made_tiles
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.errors import GalleryError
gallery = open_folder(build(Path("g"), made_tiles(2000), {storage!r}))
for file in Path("g").glob("descriptors-*"):
    os.truncate(file, 0)
for use in (lambda: gallery.search(descriptors_of(["3"]), 2), lambda: next(gallery.described())):
    try:
        use()
    except GalleryError as error:
        print("cut short" in str(error), "descriptors-1" in str(error))
"""
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True True\nTrue True\n"), done.stderr
