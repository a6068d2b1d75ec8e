"""A gallery keeps what it confirmed: when its writer is killed, on a full or read-only disk, and under readers."""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from checkout import SUPPORT
from conftest import Outcome
from gallery_processes import BATCH, batch_ids, check_snapshot, read_until, tiles_of_batch, write_until_killed
from read_only import NOBODY, not_allowed_to_write
from tiny_gallery import MADE_BY, TinyEmbedder, build, descriptors_of, made_tiles

from geodtr import UserError
from geodtr.runtime.errors import GalleryError
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.names import STORAGES, Storage
from geodtr.runtime.sources.tile import Tile

_PATIENCE = 60
"""Seconds after which a process that reports nothing counts as stuck."""

# Processes without the tests' threads, started in milliseconds: forked from one that has imported the modules.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "geodtr.runtime.gallery.build"])


@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_writer_killed_at_any_instant_loses_nothing_that_it_confirmed(tmp_path: Path, rounds: int) -> None:
    path = build(tmp_path / "g", made_tiles(0), "int8")
    chance, held, next_batch, confirmed = random.Random(rounds), set[int](), 0, 0
    for number in range(rounds):
        ours, theirs = PROCESSES.Pipe(duplex=False)
        writer = PROCESSES.Process(
            target=write_until_killed, args=(path, held, next_batch, number, theirs), daemon=True
        )
        writer.start()
        theirs.close()
        assert _reported(ours) == ("opened", 0)
        heard = [_reported(ours) for _ in range(chance.randrange(9))]  # as many on a slow machine
        time.sleep(chance.uniform(0, 0.05))
        writer.kill()
        writer.join()
        done, begun = _received(ours, heard)
        confirmed += len(done)
        for what, batch in done:
            held = _after(held, what, batch)
        if (begun is not None and begun[0] == "add") or any(what == "add" for what, _ in done):
            next_batch = 1 + max(batch for what, batch in [*done, *([begun] if begun else [])] if what == "add")
        with open_folder(path) as gallery:
            there = check_snapshot(gallery)
        assert there == held or (begun is not None and there == _after(held, *begun)), f"round {number}, {begun}"
        held = there
        assert verify(path) == (), f"round {number}, {begun}"
    assert confirmed > rounds
    with FolderWriter(path) as repaired:
        assert len(repaired) == BATCH * len(held)
    assert len(list(path.glob("descriptors-*"))) == 3


def _reported(pipe: Connection) -> tuple[str, int]:
    """The next report of a writer."""
    assert pipe.poll(_PATIENCE), "the writer is stuck"
    report: tuple[str, int] = pipe.recv()
    return report


def _received(pipe: Connection, heard: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], tuple[str, int] | None]:
    """The operations that a killed writer confirmed, and the one that it had only begun; `heard` were its reports."""
    done, begun = list[tuple[str, int]](), None
    with suppress(EOFError, OSError):
        while True:
            heard.append(pipe.recv())
    for message in heard:
        if message[0] == "done" and begun is not None:
            done.append(begun)
            begun = None
        else:
            begun = message
    return done, begun


def _after(held: set[int], what: str, batch: int) -> set[int]:
    return {"add": held | {batch}, "remove": held - {batch}, "compact": held}[what]


@pytest.mark.parametrize("storage", STORAGES)
def test_readers_in_other_processes_see_whole_states_while_one_writes(tmp_path: Path, storage: Storage) -> None:
    path = build(tmp_path / "g", made_tiles(0), storage)
    ours, theirs = PROCESSES.Pipe(duplex=False)
    writer = PROCESSES.Process(target=write_until_killed, args=(path, (), 0, 1, theirs), daemon=True)
    writer.start()
    theirs.close()
    stop = PROCESSES.Event()
    readers = []
    for _ in range(2):
        receiver, sender = PROCESSES.Pipe(duplex=False)
        reader = PROCESSES.Process(target=read_until, args=(path, stop, sender), daemon=True)
        reader.start()
        sender.close()
        readers.append((reader, receiver))
    compacted = 0
    while compacted < 4:
        compacted += _reported(ours)[0] == "compact"
    stop.set()
    end = time.monotonic() + _PATIENCE
    for reader, receiver in readers:
        while not receiver.poll(0.01):
            assert time.monotonic() < end, "a reader is stuck"
            while ours.poll():  # a writer whose reports nobody takes would wait
                ours.recv()
        assert receiver.recv() is None
        reader.join()
    writer.kill()
    writer.join()


def test_an_interrupted_build_command_resumes(tmp_path: Path) -> None:
    script = (
        "import os, signal\nfrom pathlib import Path\nimport tiny_gallery as tiny\n"
        "from geodtr.runtime.gallery.build import build_gallery\n"
        "class Killed(tiny.TinyEmbedder):\n"
        "    def embed(self, images):\n"
        "        if self.seen >= 96: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().embed(images)\n"
        "build_gallery(Path('g'), tiny.made_tiles(200), Killed(), tiny.MADE_BY)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    killed = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=False)
    assert killed.returncode < 0
    embedder = TinyEmbedder()
    added = build_gallery(tmp_path / "g", made_tiles(200), embedder, MADE_BY)
    assert (added.held, added.embedded, embedder.seen) == (96, 104, 104)
    assert verify(tmp_path / "g") == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of 2 MB in memory, with options, and remove it after the test."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str = "size=2m") -> Path:
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
        if result.returncode:
            pytest.skip(f"a file system can be mounted by root only: {result.stderr.strip()}")
        return place

    if shutil.which("mount") is None:
        pytest.skip("this system has no mount")
    yield mount
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_a_full_disk_stops_a_writer_and_loses_nothing_that_it_confirmed(
    small_disk: Callable[..., Path], storage: Storage
) -> None:
    disk = small_disk()
    path = build(disk / "g", made_tiles(0), storage)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 400_000))
    batch = 0
    with FolderWriter(path) as writer:
        with pytest.raises(GalleryError, match="No space is left"):
            while True:
                writer.add(tiles_of_batch(batch), descriptors_of(batch_ids(batch)))
                batch += 1
        assert batch > 3
        with open_folder(path) as gallery:
            assert check_snapshot(gallery) == set(range(batch))
    ballast.write_bytes(bytes(ballast.stat().st_size + shutil.disk_usage(disk).free))
    with open_folder(path) as gallery:
        assert check_snapshot(gallery) == set(range(batch))
    assert verify(path) == ()
    ballast.unlink()
    with FolderWriter(path) as writer:
        writer.add(tiles_of_batch(batch), descriptors_of(batch_ids(batch)))
    with open_folder(path) as gallery:
        assert check_snapshot(gallery) == set(range(batch + 1))
    assert verify(path) == ()


def test_a_full_disk_stops_compacting_and_a_build(small_disk: Callable[..., Path]) -> None:
    disk = small_disk("size=4m")
    path = build(disk / "g", made_tiles(2000))
    ballast = disk / "ballast"
    with FolderWriter(path) as writer:
        writer.remove(["1*"])
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 60_000))
        with pytest.raises(GalleryError, match="No space is left"):
            writer.compact()
        left = len(writer)
    assert verify(path) == ()
    with open_folder(path) as gallery:
        assert len(gallery) == left
    with pytest.raises(UserError, match="No space is left"):
        build(disk / "h", made_tiles(4000))
    ballast.unlink()
    with FolderWriter(path) as writer:
        assert writer.compact().references == left
    assert verify(path) == ()


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_a_gallery_on_a_read_only_disk_can_be_read_and_refuses_a_writer(
    small_disk: Callable[..., Path], cli: Callable[..., Outcome], killed: bool
) -> None:
    disk = small_disk()
    path = build(disk / "g", made_tiles(3), "int8")
    if killed:
        # The copy of a gallery in use: the last confirmed changes are only in the log.
        with FolderWriter(path) as writer:
            writer.add([Tile("last", "last.png")], descriptors_of(["last"]))
            shutil.copytree(path, disk / "copy")
        path = disk / "copy"
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    expected = ["000", "001", "002", *(["last"] if killed else [])]
    with open_folder(path) as gallery:
        assert [tile.id for tile in gallery.all_tiles()] == expected
        assert gallery.search(descriptors_of(expected[-1:]), 1).rows.tolist() == [[len(expected) - 1]]
    assert verify(path) == ()
    assert cli("gallery", "info", path).code == 0
    with pytest.raises(GalleryError, match="read-only"):
        FolderWriter(path)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_reader_without_write_permission_keeps_its_snapshot_beside_a_writer(public_folder: Path) -> None:
    path = build(public_folder / "g", made_tiles(2000))
    with not_allowed_to_write(path):
        gallery = open_folder(path)
    with gallery:
        with FolderWriter(path) as writer:
            writer.remove(["0*"])
            writer.compact()
        assert [tile.id for tile in gallery.all_tiles()] == [f"{n:03}" for n in range(2000)]
        assert gallery.search(descriptors_of(["1999"]), 1).rows.tolist() == [[1999]]
    with not_allowed_to_write(path):
        assert verify(path) == ()
        with open_folder(path) as gallery:
            assert gallery.tile(0).id == "100"


def test_a_copy_is_consistent_although_a_writer_changes_files_meanwhile(
    public_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(public_folder / "g", made_tiles(50))
    copy, changes = shutil.copyfile, iter(("remove", "compact"))

    def copy_and_change(source: Path, target: Path) -> None:
        copy(source, target)
        if change := next(changes, None):
            # The folder's owner is another process, which has ended when the copy continues.
            os.seteuid(os.getuid())
            path.chmod(0o755)
            with FolderWriter(path) as writer:
                writer.remove(["00*"]) if change == "remove" else writer.compact()
            path.chmod(0o555)
            if not os.getuid():
                os.seteuid(NOBODY)

    monkeypatch.setattr(shutil, "copyfile", copy_and_change)
    with not_allowed_to_write(path), open_folder(path) as gallery:
        assert [tile.id for tile in gallery.all_tiles()] == [f"{n:03}" for n in range(10, 50)]


def test_without_space_for_a_copy_of_the_table_the_error_names_the_remedy(
    public_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(public_folder / "g", made_tiles(3))
    monkeypatch.setattr(tempfile, "tempdir", str(public_folder / "nowhere"))
    with not_allowed_to_write(path), pytest.raises(GalleryError, match="TMPDIR"):
        open_folder(path)
