"""The command in a poor environment: closed and full streams, limits, signals.

Most are a process of their own, of a command that loads no PyTorch. The end is always one message and no traceback.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from program import PROGRAM, localize, run
from size_limit import file_size_limit
from tiny_world import TinyWorld, make_world


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    world = make_world(tmp_path_factory.mktemp("environment"), 2)
    world.photograph(world.bundle.parent / "photos/0.png", 0)
    return world


def limited(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


@pytest.mark.parametrize("line", ["gallery info GALLERY", "gallery info GALLERY --json", "--help"])
def test_a_full_disk_under_standard_output_is_reported(tiny: TinyWorld, line: str) -> None:
    words = line.replace("GALLERY", str(tiny.gallery)).split()
    with Path("/dev/full").open("w") as full:
        assert "No space left on device" in run(*words, stdout=full)


_CUT_WHILE_READ = """
import os, sys
from geodtr.runtime.search import exact
from geodtr.__main__ import main

cut, product = sys.argv.pop(), exact.product

def product_of_cut(queries):
    real = product(queries)
    def multiply(rows):
        os.truncate(cut, 0)  # the rows were taken: their file's length is not asked again
        return real.multiply(rows)
    return type(real)(multiply, real.threads)

exact.search.__defaults__ = (None, product_of_cut)
main()
"""


def test_descriptors_cut_short_while_they_are_read_end_in_a_message(tiny: TinyWorld, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    shutil.copytree(tiny.gallery, gallery)
    words = ("localize", tiny.bundle.parent / "photos", "--bundle", tiny.bundle, "--gallery", gallery)
    line = [sys.executable, "-c", _CUT_WHILE_READ, *map(str, words), str(next(gallery.glob("descriptors-*.float32")))]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done
    assert "A file was cut short by another process" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams_are_reported(tiny: TinyWorld) -> None:
    message = run("gallery", "info", tiny.gallery, stdout=None, preexec_fn=lambda: os.close(1))
    assert "Standard output cannot be written (Bad file descriptor)" in message
    run("gallery", "info", tiny.gallery / "gone", stderr=None, preexec_fn=lambda: os.close(2))
    message = run(*localize(tiny, "--track", "-"), preexec_fn=lambda: os.close(0))
    assert "standard input cannot be read (Bad file descriptor)" in message


def test_a_closed_standard_error_does_not_end_the_work(tiny: TinyWorld) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        printed = run(*localize(tiny, tiny.bundle.parent / "photos", "--json"), code=0, stderr=writer)
        run("gallery", "info", tiny.gallery / "gone", stderr=writer)
    finally:
        os.close(writer)
    assert json.loads(printed)["image"]


def test_a_file_opened_later_never_gets_the_number_of_a_closed_stream(tiny: TinyWorld, tmp_path: Path) -> None:
    out = tmp_path / "e.npy"

    def close_all() -> None:
        for number in (0, 1, 2):
            os.close(number)

    words = ("embed", tiny.bundle, tiny.bundle.parent / "photos", "--branch", "ground", "--out", out)
    run(*words, code=0, stdout=None, stderr=None, preexec_fn=close_all)
    assert np.load(out).shape[0] == 1


def test_a_reader_that_has_seen_enough_is_no_error(tiny: TinyWorld) -> None:
    line = f"'{PROGRAM}' gallery info '{tiny.gallery}' --json | head -1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def without_reader(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """The command with a standard output whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        line = [PROGRAM, *map(str, arguments)]
        return subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120)
    finally:
        os.close(writer)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_answers_that_nobody_reads_end_the_command_as_other_tools(tiny: TinyWorld, form: list[str]) -> None:
    done = without_reader(*localize(tiny, *[tiny.bundle.parent / "photos"] * 3, *form))
    assert done.returncode == 128 + signal.SIGPIPE
    assert b"Traceback" not in done.stderr
    assert b"Error" not in done.stderr


def test_files_and_an_autopilot_get_every_answer_when_nobody_reads_them(tiny: TinyWorld, tmp_path: Path) -> None:
    out = tmp_path / "fixes.geojson"
    to = ("--out", out, "--json", "--mavlink", "udpout:127.0.0.1:9", "--uncalibrated-sigma", 20)
    done = without_reader(*localize(tiny, *[tiny.bundle.parent / "photos"] * 3, *to))
    assert done.returncode == 0, done.stderr
    assert b"Sent 3 positions" in done.stderr
    assert len(json.loads(out.read_text())["features"]) == 3


def test_a_full_disk_under_standard_output_costs_no_file(tiny: TinyWorld, tmp_path: Path) -> None:
    out = tmp_path / "fixes.jsonl"
    with Path("/dev/full").open("w") as full:
        photos = [tiny.bundle.parent / "photos"] * 3
        message = run(*localize(tiny, *photos, "--out", out, "--json"), stdout=full)
    assert "Standard output cannot be written (No space left on device)" in message
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize("kilobytes", [1, 4, 16])
def test_a_limit_on_file_sizes_ends_in_a_message(
    tiny: TinyWorld, tmp_path: Path, kilobytes: int, refused: Callable[..., str]
) -> None:
    photos = [tiny.bundle.parent / "photos"] * 25
    with file_size_limit(1024 * kilobytes):
        building = refused("gallery", "build", tiny.bundle, tiny.bundle.parent / "tiles", "--out", tmp_path / "g")
        embedding = refused("embed", tiny.bundle, *photos, "--branch", "ground", "--out", tmp_path / "e.npy")
    assert "ulimit -f" in building
    assert "ulimit -f" in embedding


def test_a_limit_on_file_sizes_of_the_shell_ends_in_a_message(tiny: TinyWorld, tmp_path: Path) -> None:
    building = ("gallery", "build", tiny.bundle, tiny.bundle.parent / "tiles", "--out", tmp_path / "g")
    # Python does not see that bytecode is cut.
    how: dict[str, Any] = {"preexec_fn": limited(resource.RLIMIT_FSIZE, 4096), "env": {"PYTHONDONTWRITEBYTECODE": "1"}}
    assert "ulimit -f" in run(*building, **how)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kilobytes", [4, 16, 64])
def test_a_full_disk_ends_in_a_message(
    tiny: TinyWorld, tmp_path: Path, kilobytes: int, refused: Callable[..., str]
) -> None:
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("a file system can be mounted by root only")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        words = ("gallery", "build", tiny.bundle, tiny.bundle.parent / "tiles", "--out", disk / "g")
        assert "No space is left" in refused(*words)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("files", [5, 6, 7, 8, 16])
def test_few_open_files_end_in_a_message_or_suffice(tiny: TinyWorld, files: int) -> None:
    image = tiny.bundle.parent / "photos/0.png"
    done = subprocess.run(
        [PROGRAM, *map(str, localize(tiny, image))],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(resource.RLIMIT_NOFILE, files),
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2)


def test_a_home_that_cannot_be_written_makes_no_noise(tiny: TinyWorld) -> None:
    image = tiny.bundle.parent / "photos/0.png"
    message = run(
        *localize(tiny, image, "--json"), code=0, env={"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    )
    assert "telemetry" not in message
    assert "onnxruntime" not in message


def test_onnx_runtime_reports_to_nobody() -> None:
    script = "import geodtr, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"1\n"


SIGNALLED = """
import os, signal, sys

class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Signals())
sys.argv[1:] = {arguments!r}
from geodtr.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("module", ["geodtr.cli.main", "typer", "rich.console", "geodtr.runtime.bundle", "onnxruntime"])
def test_a_signal_while_modules_are_loaded_ends_it_without_a_traceback(tiny: TinyWorld, module: str, name: str) -> None:
    image = tiny.bundle.parent / "photos/0.png"
    script = SIGNALLED.format(module=module, signal=name, arguments=[*map(str, localize(tiny, image))])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    number = getattr(signal, name)
    assert done.returncode in (-number, 128 + number), done.stderr
    assert done.stderr in ("", "Interrupted.\n")


AT_THE_LAST_WRITE = """
import os, signal, sys
from geodtr.__main__ import main
from geodtr.runtime.files import writing

rename = writing._rename_to_new

def and_signal(file, path):
    if {before}:
        os.kill(os.getpid(), signal.SIGTERM)
    rename(file, path)
    if not {before}:
        os.kill(os.getpid(), signal.SIGTERM)

writing._rename_to_new = and_signal
sys.argv[1:] = {arguments!r}
main()
"""


@pytest.mark.parametrize("before", [True, False])
def test_a_signal_at_the_last_write_of_embed_leaves_both_files_and_names_them(
    tiny: TinyWorld, tmp_path: Path, before: bool
) -> None:
    out = tmp_path / "e.npy"
    words = ["embed", tiny.bundle, tiny.bundle.parent / "photos", "--branch", "ground", "--out", out]
    script = AT_THE_LAST_WRITE.format(before=before, arguments=[*map(str, words)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.csv", "e.npy"]
    assert f"Wrote {out} and {out.with_suffix('.csv')}" in done.stderr
    assert np.load(out).shape[0] == 1


def test_what_a_killed_embed_left_is_removed_by_the_next(tiny: TinyWorld, tmp_path: Path) -> None:
    out = tmp_path / "e.npy"
    words = ["embed", tiny.bundle, tiny.bundle.parent / "photos", "--branch", "ground", "--out", out]
    script = AT_THE_LAST_WRITE.format(before=True, arguments=[*map(str, words)]).replace("SIGTERM", "SIGKILL")
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".e.npy.mine").touch()
    run(*words, code=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".e.npy.mine", "e.csv", "e.npy"]


@pytest.mark.parametrize(
    "line",
    [
        "localize IMAGE --limit 1000000000000000000000000000000",
        "localize IMAGE --top 99999999999",
        "embed BUNDLE IMAGE --branch ground --out e.npy --latency-budget nan",
        "embed BUNDLE IMAGE --branch ground --out e.npy --latency-budget inf",
        "gallery preview IMAGE --tile-metres nan",
        "world w --pairs 1 --size ²x²",
        "world w --pairs 1 --size 99999x9",
        "bench BUNDLE --batch ²",
    ],
)
def test_numbers_that_are_none_are_refused(
    tiny: TinyWorld, tmp_path: Path, line: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = str(tiny.bundle.parent / "photos/0.png")
    words = [{"IMAGE": image, "BUNDLE": str(tiny.bundle)}.get(word, word) for word in line.split()]
    more = ["--bundle", str(tiny.bundle), "--gallery", str(tiny.gallery)] if words[0] == "localize" else []
    assert "Error" in refused(*words, *more)


def test_an_image_with_odd_metadata_brings_no_warnings_of_pillow(tiny: TinyWorld, tmp_path: Path) -> None:
    image = Image.open(tiny.bundle.parent / "photos/0.png").convert("RGB")
    image.save(tmp_path / "odd.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x03\x00broken")
    message = run(*localize(tiny, tmp_path / "odd.jpg", "--json"), code=0)
    assert "Warning: " not in message.replace("Warning: Positions claim no radius", "")
    assert "PIL" not in message


def test_a_table_of_nul_bytes_is_not_echoed_whole(tiny: TinyWorld, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "drive.csv").write_bytes(bytes(1_000_000))
    assert len(refused(*localize(tiny, "--track", tmp_path / "drive.csv"))) < 5000
