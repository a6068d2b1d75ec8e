"""Prepared images have the same pixels, are written once despite interruptions, and give the same evaluation."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from checkout import SUPPORT
from conftest import Outcome, Trained
from PIL import Image

from geodtr.cli import console
from geodtr.runtime.errors import DataError
from geodtr.runtime.images.camera_model import read_camera_model, undistort
from geodtr.runtime.images.decode import decode
from geodtr.runtime.images.preprocess import as_input, load_image
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.prepare import prepare
from geodtr.training.data.readers.prepared import read_prepared
from geodtr.training.data.spec import read_test_set
from geodtr.training.data.views import Views
from geodtr.training.presets.load import load_preset
from geodtr.training.world.dataset import WorldSet, write_world

Cli = Callable[..., Outcome]

HOW: dict[Branch, Preprocessing] = {
    "ground": Preprocessing(height=8, width=24, rows=(0.25, 0.75), resize="area"),
    "aerial": Preprocessing(height=8, width=24, polar=True),
}


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "pairs"
    write_world(folder, WorldSet(pairs=60, height=64, width=256))
    return folder


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepared_pixels_of_real_images_are_the_official_ones(
    conformance: Path, cvusa_sample: Path, tmp_path: Path, cli: Cli
) -> None:
    out = tmp_path / "out"
    result = cli("data", "prepare", f"cvusa:{cvusa_sample}#val", "--out", out)
    assert result.code == 0, result.err
    assert f"--data prepared:{out}" in result.err
    figures = np.load(conformance / "cvusa_samples_polar.npz")
    preset = load_preset("geodtr-cvusa")
    prepared = read_test_set(f"prepared:{out}")
    for pair, polar, ground in zip(prepared.pairs, figures["polar"], figures["ground"], strict=True):
        for path, how, pixels in ((pair.aerial, preset.aerial, polar), (pair.ground, preset.ground, ground)):
            np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
            np.testing.assert_array_equal(load_image(path, how), pixels)
    assert cli("data", "check", f"prepared:{out}").code == 0


def test_evaluation_on_prepared_images_is_evaluation_on_the_originals(
    trained: Trained, tmp_path: Path, cli: Cli
) -> None:
    spec, out, bundle = trained.test_set.name, tmp_path / "out", trained.bundles["fp32"].path
    assert cli("data", "prepare", spec, "--preset", "world-tiny", "--limit", 50, "--out", out).code == 0
    original = json.loads(cli("evaluate", bundle, "--data", spec, "--limit", 50, "--json").out)
    prepared = json.loads(cli("evaluate", bundle, "--data", f"prepared:{out}", "--json").out)
    (expected,), (got,) = original["results"], prepared["results"]
    assert got == {**expected, "data": got["data"]}


def test_images_prepared_for_another_model_are_refused_naming_both(
    trained: Trained, tmp_path: Path, cli: Cli, refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    cli("data", "prepare", trained.test_set.name, "--preset", "world-demo", "--limit", 3, "--out", out)
    message = refused("evaluate", trained.bundles["fp32"].path, "--data", f"prepared:{out}")
    assert '"height":48' in message
    assert '"height":32' in message


def test_a_prepared_set_loses_nothing_of_its_source(tmp_path: Path) -> None:
    paths = [
        trees.write_image(tmp_path / folder / f"{name}.png", side, side)
        for folder, name, side in (
            ("g", "a", 8),
            ("h", "a", 8),
            ("t", "sätellite 1,[2]", 12),
            ("t", "s" * 200, 12),
            ("t", "東京", 12),
            ("u", "distractor", 12),
        )
    ]
    pairs = (
        Pair(paths[0], paths[2], 0.1 + 0.2, -179.999999999, 359.99, (690000.1, 6090000.7), (paths[3], paths[4])),
        Pair(paths[1], paths[2], semi_positives=(paths[4],)),
        Pair(paths[0], tmp_path / "broken.png"),
    )
    (tmp_path / "broken.png").write_bytes(b"no image")
    source = PairSet("pairs:somewhere", pairs, (paths[5],))
    done = prepare(tmp_path / "out", source, HOW)
    assert (done.written, done.reused) == (6, 0)
    assert [entry.path for entry in done.pair_set.skipped] == [tmp_path / "broken.png"]
    # The folder is whole in itself: it may be moved.
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    prepared = read_prepared(moved)
    assert prepared.skipped == done.pair_set.skipped
    assert len(prepared) == 2
    for pair, original in zip(prepared.pairs, pairs, strict=False):
        assert replace(pair, ground=original.ground, aerial=original.aerial, semi_positives=()) == replace(
            original, semi_positives=()
        )
    assert np.array_equal(prepared.tiles, done.pair_set.tiles)
    assert len(prepared.references) == len(done.pair_set.references)
    for branch in BRANCHES:
        for path, original_path in zip(prepared.images(branch), done.pair_set.images(branch), strict=True):
            assert np.array_equal(load_image(path, HOW[branch]), load_image(original_path, HOW[branch]))
    assert prepared.ignored is not None
    assert done.pair_set.ignored is not None
    assert np.array_equal(prepared.ignored.reference, done.pair_set.ignored.reference)


def test_an_unreadable_panorama_of_several_pairs_counts_as_no_reused_image(tmp_path: Path) -> None:
    tiles = [trees.write_image(tmp_path / f"{name}.png", 12, 12) for name in "abc"]
    (tmp_path / "broken.png").write_bytes(b"no image")
    grounds = [trees.write_image(tmp_path / "ground.png", 24, 8), tmp_path / "broken.png", tmp_path / "broken.png"]
    pairs = PairSet("pairs:somewhere", tuple(map(Pair, grounds, tiles))).seen(Views(90, "unknown"))
    counts = [prepare(tmp_path / "out", pairs, HOW) for _ in range(2)]
    assert [(done.written, done.reused) for done in counts] == [(4, 0), (0, 4)]


def test_ground_images_are_undistorted_as_localize_does(tmp_path: Path, cli: Cli, refused: Callable[..., str]) -> None:
    folder, how = tmp_path / "pairs", load_preset("world-tiny").ground
    write_world(folder, WorldSet(pairs=2, height=64, width=256))
    first = read_test_set(f"pairs:{folder}").pairs[0].ground
    camera = tmp_path / "camera.yaml"
    camera.write_text("width: 256\nheight: 64\nk: [150, 0, 128, 0, 150, 32, 0, 0, 1]\nd: [-0.2, 0.05, 0, 0]\n")
    out, command = tmp_path / "out", ("data", "prepare", f"pairs:{folder}", "--preset", "world-tiny", "--out")
    done = cli(*command, out, "--undistort", camera)
    assert done.code == 0, done.err
    expected = as_input(undistort(decode(first), read_camera_model(camera), "a"), how)
    prepared = read_prepared(out).pairs[0].ground
    np.testing.assert_array_equal(np.asarray(Image.open(prepared)), expected)
    assert np.abs(expected.astype(int) - load_image(first, how)).max() > 10
    message = refused(*command, out)
    assert "ground images undistorted by pinhole 256x64: 150, 150, 128, 32, -0.2, 0.05, 0, 0, not as they" in message
    camera.write_text(camera.read_text().replace("width: 256", "width: 250"))
    assert "256x64 pixels" in cli(*command, tmp_path / "none", "--undistort", camera).err


def test_an_unreadable_image_is_left_out_and_listed(pairs_folder: Path, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pairs_folder, copy)
    (copy / "ground/000003.png").write_bytes(b"")
    (copy / "aerial/000004.png").unlink()
    result = cli("data", "prepare", f"pairs:{copy}", "--preset", "world-tiny", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert "2 files of" in result.err
    assert "58 pairs" in result.err
    prepared = read_prepared(tmp_path / "out")
    assert [entry.path.name for entry in prepared.skipped] == ["000004.png", "000003.png"]
    checked = cli("data", "check", f"prepared:{tmp_path / 'out'}")
    assert (checked.code, "58 pairs, 2 files missing" in checked.out) == (1, True)


def _run_until(command: list[object], out: Path, images: int, number: signal.Signals) -> str:
    """Start `command`, send it a signal when it has written so many images, and return its output."""
    line = [sys.executable, *map(str, command)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=SUPPORT)
    while process.poll() is None and sum(1 for _ in out.glob("*/[!.]*.png")) < images:
        time.sleep(0.001)
    process.send_signal(number)
    output = process.communicate()[1]
    assert process.returncode != 0, "it was too quick to be interrupted"
    return output


@pytest.fixture(scope="module")
def whole(pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare(out, read_test_set(f"pairs:{pairs_folder}"), HOW)
    return _tree(out)


_PREPARE = f"""
import sys
from pathlib import Path
from geodtr.runtime.spec import Imagery, Preprocessing
from geodtr.training.data.prepare import prepare
from geodtr.training.data.spec import read_test_set
prepare(Path(sys.argv[1]), read_test_set(sys.argv[2]), {HOW!r}, jobs=2)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_resumes_with_the_same_result(
    pairs_folder: Path, whole: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    out, source = tmp_path / "out", read_test_set(f"pairs:{pairs_folder}")
    images = int(np.random.default_rng(seed).integers(1, 60))
    _run_until(["-c", _PREPARE, out, source.name], out, images, signal.SIGKILL)
    with pytest.raises(DataError, match="resume: geodtr-export data prepare"):
        read_prepared(out)
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*/[!.]*.png")}
    assert len(finished) >= images
    # What a kill in the middle of a write leaves.
    (out / "ground" / ".000001-abc.png.x1y2z3.png").write_bytes(b"half")
    (out / ".unfinished.json.x1y2z3.json").write_bytes(b"half")
    assert prepare(out, source, HOW).reused == len(finished)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert _tree(out) == whole


def test_an_interrupted_command_names_the_command_that_resumes(pairs_folder: Path, tmp_path: Path, cli: Cli) -> None:
    command = ("data", "prepare", f"pairs:{pairs_folder}", "--preset", "world-demo", "--jobs", "1", "--out")
    out = tmp_path / "out"
    output = _run_until(["-m", "geodtr.cli.main", *command, out], out, 10, signal.SIGINT)
    assert "Interrupted." in output
    assert "the same command goes on from here" in output
    assert "Traceback" not in output
    assert not list(out.rglob(".*")), "something half-written was left"
    assert cli(*command, out).code == cli(*command, tmp_path / "whole").code == 0
    assert _tree(out) == _tree(tmp_path / "whole")


def test_a_folder_of_another_source_or_preset_is_left_alone(pairs_folder: Path, tmp_path: Path, cli: Cli) -> None:
    out, spec = tmp_path / "out", f"pairs:{pairs_folder}"
    prepare_tiny = ("data", "prepare", spec, "--preset", "world-tiny", "--limit", 2, "--out", out)
    assert cli(*prepare_tiny).code == 0
    before = _tree(out)
    other = cli("data", "prepare", spec, "--preset", "world-demo", "--limit", 2, "--out", out)
    copy = shutil.copytree(pairs_folder, tmp_path / "copy")
    copied = cli("data", "prepare", f"pairs:{copy}", "--preset", "world-tiny", "--limit", 2, "--out", out)
    assert (other.code, copied.code) == (2, 2)
    assert "ground images prepared as" in other.err
    assert f"images of {spec}, not of pairs:{copy}" in copied.err
    assert _tree(out) == before
    # A finished one is completed, where something was taken away.
    next(out.glob("aerial/*.png")).unlink()
    assert "1 image written" in cli(*prepare_tiny).err
    assert _tree(out) == before


def test_a_folder_that_holds_something_else_is_left_alone(
    pairs_folder: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    arguments = ("data", "prepare", f"pairs:{pairs_folder}", "--preset", "world-tiny", "--out")
    assert "exists" in refused(*arguments, tmp_path / "mine")
    assert "cannot be written" in refused(*arguments, tmp_path / "file")
    (tmp_path / "mine" / "prepared.json").write_text("{}")
    assert "prepared.json is invalid" in refused(*arguments, tmp_path / "mine")


def test_two_runs_do_not_write_one_folder(pairs_folder: Path, tmp_path: Path) -> None:
    source = read_test_set(f"pairs:{pairs_folder}", 2)

    def try_another(items: Any, description: str, total: int | None) -> Iterator[Any]:
        del description, total
        with pytest.raises(DataError, match="written by another process"):
            prepare(tmp_path / "out", source, HOW)
        return iter(items)

    prepare(tmp_path / "out", source, HOW, track=try_another)
    assert len(read_prepared(tmp_path / "out")) == 2


def test_a_preset_must_be_named_where_none_is_the_data_sets_own(
    pairs_folder: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "--preset" in refused("data", "prepare", f"pairs:{pairs_folder}", "--out", tmp_path / "out")
    message = refused("data", "prepare", f"pairs:{pairs_folder}", "--preset", "huge", "--out", tmp_path / "out")
    assert "geodtr-cvact, geodtr-cvusa" in message


def test_cvact_is_prepared_by_its_own_rule(tmp_path: Path, cli: Cli) -> None:
    root = trees.cvact(tmp_path / "cvact", ["a" * 22, "b" * 22], [(0.0, 0.0), (9.0, 9.0)], val=[2, 1])
    assert cli("data", "prepare", f"cvact:{root}#val", "--out", tmp_path / "out").code == 0
    prepared, preset = read_prepared(tmp_path / "out"), load_preset("geodtr-cvact")
    assert [pair.utm for pair in prepared.pairs] == [(9.0, 9.0), (0.0, 0.0)]
    source = read_test_set(f"cvact:{root}#val")
    for branch in BRANCHES:
        how = preset.ground if branch == "ground" else preset.aerial
        for made, original in zip(prepared.paths(branch), source.paths(branch), strict=True):
            assert np.array_equal(load_image(made, how), load_image(original, how))


@pytest.mark.parametrize("place", ["../x.png", "/etc/passwd", "a/../../b", "."])
def test_a_document_may_not_name_files_outside_its_folder(pairs_folder: Path, tmp_path: Path, place: str) -> None:
    prepare(tmp_path / "out", read_test_set(f"pairs:{pairs_folder}", 2), HOW)
    path = tmp_path / "out" / "prepared.json"
    document = json.loads(path.read_text())
    document["pairs"][0]["ground"] = place
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="not a file inside its folder"):
        read_prepared(tmp_path / "out")


def test_the_progress_bar_shows_a_rate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    terminal = Console(stderr=True, force_terminal=True, width=120, markup=False)
    monkeypatch.setattr(console, "messages", terminal)
    for _ in console.track(range(3), "Preparing images", 3):
        time.sleep(0.15)
    assert "/s" in capsys.readouterr().err


def test_a_finished_folder_is_not_made_smaller_by_a_limit(pairs_folder: Path, tmp_path: Path, cli: Cli) -> None:
    command = ("data", "prepare", f"pairs:{pairs_folder}", "--preset", "world-tiny", "--out", tmp_path / "prepared")
    assert cli(*command).code == 0
    before = (tmp_path / "prepared" / "prepared.json").read_bytes()
    result = cli(*command, "--limit", 2)
    assert result.code == 2
    assert "is finished with" in result.err
    assert (tmp_path / "prepared" / "prepared.json").read_bytes() == before


def test_a_prepared_set_shows_the_area_of_its_source(pairs_folder: Path, tmp_path: Path, cli: Cli) -> None:
    cli("data", "prepare", f"pairs:{pairs_folder}", "--preset", "world-tiny", "--out", tmp_path / "prepared")
    prepared = f"prepared:{tmp_path / 'prepared'}"
    assert read_test_set(prepared).source == f"pairs:{pairs_folder}"
