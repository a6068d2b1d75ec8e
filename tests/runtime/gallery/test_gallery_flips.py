"""One flipped bit anywhere in a gallery's files: `verify` names it, and no writer loses anything that was confirmed."""

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gallery import SIZE, build, descriptors_of, in_memory, made_tiles

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.folder import opening
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.sources.tile import Tile

Writer = Callable[[FolderWriter], object]
WRITERS: dict[str, Writer] = {
    "add": lambda writer: writer.add([Tile("new", "new.png")], descriptors_of(["new"])),
    "remove": lambda writer: writer.remove(["003"]),
    "compact": lambda writer: writer.compact(),
    "refused": lambda writer: writer.remove(["no-such-id"]),
}
Held = dict[str, tuple[tuple[Any, ...], bytes]]
"""What a gallery holds, by id: its row in the table, and the float32 descriptor."""


class Intact:
    """A small gallery in pages of 512 bytes, with a removed tile: `damaged` gives a copy with one flipped bit."""

    def __init__(self, path: Path) -> None:
        build(path, made_tiles(5), "int8")
        with FolderWriter(path) as writer:
            writer.remove(["001"])
        self.files = contents(path)
        self.held = held(path)
        self.path, self._copy = path, path.with_name("copy")

    @contextmanager
    def damaged(self, name: str, bit: int) -> Iterator[Path]:
        content = bytearray(self.files[name])
        content[bit // 8] ^= 1 << bit % 8
        self._copy.mkdir()
        for each, whole in self.files.items():
            (self._copy / each).write_bytes(content if each == name else whole)
        yield self._copy
        shutil.rmtree(self._copy)


@pytest.fixture
def intact(monkeypatch: pytest.MonkeyPatch) -> Iterator[Intact]:
    monkeypatch.setattr(opening, "_PAGE", 512)
    with in_memory() as folder:
        yield Intact(folder / "g")


def contents(path: Path) -> dict[str, bytes]:
    """All that a gallery's files say: the lock and SQLite's index of its log say nothing."""
    read = {file.name: file.read_bytes() for file in path.iterdir()}
    return {name: content for name, content in read.items() if content and not name.endswith(("lock", "-shm"))}


def held(path: Path) -> Held:
    with closing(sqlite3.connect(path / "references.sqlite")) as database:
        database.text_factory = bytes
        (generation,) = database.execute("SELECT generation FROM state").fetchone()
        descriptors = np.fromfile(path / f"descriptors-{generation}.float32", "<f4").reshape(-1, SIZE)
        rows = database.execute(
            "SELECT slot, checksum, id, file, lat, lon, heading, metres_per_pixel, more FROM reference"
        )
        return {row[2].decode(): (row[1:], descriptors[row[0]].tobytes()) for row in rows}


def faults_of(path: Path) -> set[str]:
    try:
        return {fault.what for fault in verify(path)}
    except GalleryError as error:
        return {str(error)}


def bits_differ(one: bytes, other: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


def check_flip(intact: Intact, name: str, bit: int, kind: str) -> None:
    with intact.damaged(name, bit) as path:
        before, named = contents(path), faults_of(path)
        if not named:
            # What has no meaning, such as the room that is left in a page or a removed row, may be anything.
            assert name != "gallery.json"
            assert held(path) == intact.held
        try:
            with FolderWriter(path) as writer:
                WRITERS[kind](writer)
        except GalleryError:
            # Nothing was changed: with the bit flipped back all of it is there.
            assert contents(path) == before
            return
        assert kind != "refused"
        assert len(faults_of(path)) <= len(named)
        kept = {id: what for id, what in intact.held.items() if kind != "remove" or id != "003"}
        after = held(path)
        assert after.keys() == kept.keys() | ({"new"} if kind == "add" else set())
        changed = [id for id in kept if after[id] != kept[id]]
        assert len(changed) <= 1
        for id in changed:
            (values, descriptor), (old_values, old_descriptor) = after[id], kept[id]
            assert (
                bits_differ(descriptor, old_descriptor) == 1 if values == old_values else descriptor == old_descriptor
            )


def check(intact: Intact, bits: Callable[[int], list[tuple[int, str]]]) -> int:
    """Try some bits of each byte of each file, each with a writer; how many were tried."""
    tried = 0
    for name, content in intact.files.items():
        for byte in range(len(content)):
            for bit, kind in bits(byte):
                try:
                    check_flip(intact, name, 8 * byte + bit, kind)
                except Exception as error:
                    raise AssertionError(f"bit {bit} of byte {byte} of {name}, then {kind}") from error
                tried += 1
    return tried


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_any_byte_is_named_and_costs_nothing_else(intact: Intact, step: int) -> None:
    chance, kinds = random.Random(0), list(WRITERS)
    tried = check(intact, lambda byte: [] if byte % step else [(chance.randrange(8), kinds[byte % 4])])
    assert tried == sum(-(-len(content) // step) for content in intact.files.values())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("step", [67, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_the_log_of_a_killed_writer_costs_nothing_that_cannot_be_had_back(
    intact: Intact, step: int
) -> None:
    path, killed = intact.path, intact.path.with_name("killed")
    with FolderWriter(path) as writer:
        for id in ("a", "b", "c"):
            writer.add([Tile(id, f"{id}.png")], descriptors_of([id]))
        shutil.copytree(path, killed)  # as a process that is killed now would leave it
    log = (killed / "references.sqlite-wal").read_bytes()
    lost = 0
    for bit in range(0, 8 * len(log), step):
        copy = killed.with_name("copy")
        shutil.copytree(killed, copy)
        content = bytearray(log)
        content[bit // 8] ^= 1 << bit % 8
        (copy / "references.sqlite-wal").write_bytes(content)
        # A reader that is the last to close it deletes the log; the writer puts others in the place of lost rows.
        assert len(verify(copy)) in (0, 1)
        with FolderWriter(copy) as writer:
            writer.add([Tile("new", "new.png")], descriptors_of(["new"]))
        kept = list(copy.glob("set-aside-references.sqlite-wal-*"))
        if {"a", "b", "c"} <= held(copy).keys():
            assert len(kept) <= 1
        else:
            assert [file.read_bytes() for file in kept] == [content]
            (rest,) = copy.glob("set-aside-descriptors-1.float32-from-row-*")
            assert descriptors_of(["c"])[0].tobytes() in rest.read_bytes()
            assert verify(copy)
            lost += 1
        shutil.rmtree(copy)
    assert lost
    assert verify(killed) == ()
    assert not list(killed.glob("set-aside-*"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_flipped_bit_is_named_and_costs_nothing_else(intact: Intact, kind: str) -> None:
    check(intact, lambda _: [(bit, kind) for bit in range(8)])
