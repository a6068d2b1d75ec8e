"""Durable or absent: what is written is whole, what fails or is interrupted leaves nothing."""

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from size_limit import file_size_limit

from geodtr import UserError
from geodtr.runtime.errors import ConfigError, OutputExists
from geodtr.runtime.files import (
    GrowingFile,
    check_new_file,
    check_new_folder,
    make_folder,
    new_file,
    new_folder,
    new_pair,
    write_bytes,
    write_link,
    writing,
)


@settings(max_examples=25, deadline=None)
@given(first=st.binary(max_size=2000), second=st.binary(max_size=2000))
def test_a_file_is_replaced_whole(tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes) -> None:
    path = tmp_path_factory.mktemp("files") / "deep" / "file.bin"
    write_bytes(path, first)
    write_bytes(path, second)
    assert path.read_bytes() == second
    assert _names(path.parent) == ["file.bin"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail() -> None:
        with new_file(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["file"]


def test_a_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    def fill(fail: bool) -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "part").write_text("x")
            assert not (tmp_path / "out").exists()
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fill(fail=True)
    assert _names(tmp_path) == []
    fill(fail=False)
    assert _names(tmp_path / "out") == ["part"]
    with pytest.raises(OutputExists, match="not empty"):
        fill(fail=False)


def test_temporary_files_of_a_killed_process_are_removed_but_not_of_a_running_one(tmp_path: Path) -> None:
    fill = (
        "import sys, time; from pathlib import Path; from geodtr.runtime.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'part').write_text('x'); print('begun', flush=True); time.sleep(60)\n"
    )
    (tmp_path / ".out.mine").write_text("a file of the user's own")
    line = [sys.executable, "-c", fill, str(tmp_path / "out")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "begun\n"
        with pytest.raises(KeyError), new_folder(tmp_path / "out"):
            raise KeyError
        assert len(_names(tmp_path)) == 2
        killed.kill()
    assert len(_names(tmp_path)) == 2
    with new_folder(tmp_path / "out"):
        pass
    assert _names(tmp_path) == [".out.mine", "out"]


def test_what_a_killed_process_left_of_a_file_is_gone_after_the_next(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom geodtr.runtime.files import new_file\n"
        "with new_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'much more than the next one writes')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    for name in ("rows.npy", "x" * 200 + "\N{GRINNING FACE}" * 10 + ".csv"):
        path = tmp_path / name
        subprocess.run([sys.executable, "-c", script, str(path)], check=False)
        assert len(_names(tmp_path)) == 1
        with new_file(path) as temporary:
            assert temporary.stat().st_size == 0
            assert temporary.suffix == path.suffix
            temporary.write_bytes(b"next")
        assert path.read_bytes() == b"next"
        assert _names(tmp_path) == [name]
        path.unlink()


def test_two_may_write_a_file_at_once_and_the_last_to_finish_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    with new_file(path) as first:
        first.write_bytes(b"first")
        with new_file(path) as second:
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
        write_bytes(path, b"third")
    assert path.read_bytes() == b"first"
    assert _names(tmp_path) == ["rows.npy"]


@pytest.mark.parametrize("system_knows_how", [True, False])
def test_a_file_that_came_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system_knows_how: bool
) -> None:
    if not system_knows_how:
        monkeypatch.setattr(writing, "_NO_REPLACE", 1 << 20)  # a flag that no kernel knows: EINVAL, as from NFS
    path = tmp_path / "rows.npy"
    write_bytes(path, b"first", replace=False)
    path.unlink()

    def write() -> None:
        with new_file(path, replace=False) as temporary:
            temporary.write_bytes(b"second")
            path.write_bytes(b"another's")

    with pytest.raises(OutputExists, match=r"rows\.npy exists"):
        write()
    assert path.read_bytes() == b"another's"
    assert _names(tmp_path) == ["rows.npy"]


@pytest.mark.parametrize("taken", ["rows.npy", "rows.csv"])
def test_of_a_pair_both_are_written_or_neither(tmp_path: Path, taken: str) -> None:
    def write(meanwhile: str | None) -> None:
        with new_pair(tmp_path / "rows.npy", tmp_path / "rows.csv") as (numbers, table):
            numbers.write_bytes(b"mine")
            table.write_bytes(b"mine")
            if meanwhile is not None:
                (tmp_path / meanwhile).write_bytes(b"another's")

    with pytest.raises(OutputExists, match=taken):
        write(taken)
    assert _names(tmp_path) == [taken]
    assert (tmp_path / taken).read_bytes() == b"another's"
    (tmp_path / taken).unlink()
    write(None)
    assert _names(tmp_path) == ["rows.csv", "rows.npy"]


def test_a_growing_file_ends_with_a_whole_record_where_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "records.txt"
    file = GrowingFile(path)
    file.write(b"first\n")
    with (
        file_size_limit(10),
        pytest.raises(UserError, match=r"records\.txt ends here .*what was written before stays"),
    ):
        file.write(b"second\n")
    assert path.read_bytes() == b"first\n"
    with pytest.raises(UserError, match="closed"):
        file.write(b"third\n")
    with pytest.raises(UserError, match="cannot be written"):
        GrowingFile(path)


def test_a_growing_file_without_a_record_is_not_there_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "records.txt"
    GrowingFile(path).close()
    assert not path.exists()
    file = GrowingFile(path)
    path.unlink()
    path.write_bytes(b"")
    file.close()
    assert path.exists()  # it is another's


def test_a_temporary_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    with new_file(tmp_path / "rows.npy") as temporary:
        name = temporary.name
    (tmp_path / name).symlink_to(tmp_path / "outside")
    write_bytes(tmp_path / "rows.npy", b"rows")
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert (tmp_path / "rows.npy").read_bytes() == b"rows"


def test_an_output_ends_in_what_is_written(tmp_path: Path) -> None:
    check_new_file(tmp_path / "a.CSV", (".csv", ".gpx"))
    for name in ("a", "a.txt", "csv", ".csv"):
        with pytest.raises(ConfigError, match=r"does not end in \.csv or \.gpx"):
            check_new_file(tmp_path / name, (".csv", ".gpx"))


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "inside", b"x")


@pytest.mark.parametrize("place", ["file", "file/inside", "link"])
def test_a_file_where_a_folder_is_to_be_is_named_by_a_relative_path_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "link").symlink_to("file")
    monkeypatch.chdir(tmp_path)
    for make in (make_folder, lambda path: write_bytes(path / "x", b"x"), lambda path: write_link(path / "x", path)):
        with pytest.raises(UserError, match="cannot be written"):
            make(Path(place))
    assert _names(tmp_path) == ["file", "link"]


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    (tmp_path / ".current.unfinished").symlink_to("left by a killed process")
    for target in ("one", "two"):
        write_link(tmp_path / "current", Path(target))
        assert (tmp_path / "current").readlink() == Path(target)
    assert _names(tmp_path) == ["current"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_link(tmp_path / "folder", Path("one"))


def test_a_private_file_is_its_owners_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "key"
    (tmp_path / ".key.unfinished").touch(0o666)
    with new_file(path, private=True) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_bytes(b"secret")
        assert (tmp_path / ".key.unfinished").read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("check", [check_new_file, check_new_folder])
@pytest.mark.parametrize("place", ["/sys/out", "/sys/some/out", "/proc/out", "file/out"])
def test_an_output_that_cannot_be_written_is_named_before_any_work(
    tmp_path: Path, check: Callable[[Path], None], place: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        check(tmp_path / place)
    check(tmp_path / "new" / "out")
    assert _names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "geodtr.cli.main", "world", "out", "--pairs", "5000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(tmp_path.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    # Of two that a busy machine delivers together, Python handles the lower number first.
    assert process.returncode in {128 + number, 128 + signal.SIGINT}
    assert "Interrupted" in printed
    assert "Traceback" not in printed
    assert _names(tmp_path) == []


def test_the_current_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(Path()) as folder:
        (folder / "part").write_text("x")
    assert _names(tmp_path / "here") == ["part"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def fill() -> None:
        with new_file(tmp_path / "big.npy"), Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(UserError, match="No space"):
        fill()
    assert _names(tmp_path) == []


def test_a_copy_that_a_full_disk_cuts_names_where_it_goes(tmp_path: Path) -> None:
    def copy() -> None:
        with new_folder(tmp_path / "out") as folder:
            raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/a", None, str(folder / "a"))

    with pytest.raises(UserError, match=r"the disk of .*out: nothing was written"):
        copy()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
