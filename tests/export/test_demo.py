"""The demo in small: every step is real and reused when finished, and no other file is overwritten."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from checkout import ROOT
from conftest import Stop
from PIL import Image

from geodtr.export.demo import BUILT, DemoOptions, run_demo
from geodtr.runtime.errors import OutputExists
from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import read_manifest
from geodtr.training.presets.load import encode_config, load_preset

SMALL = DemoOptions(preset="world-tiny", train_pairs=64, test_pairs=24)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> DemoOptions:
    """A training of four epochs: nothing is asked of the model."""
    preset = tmp_path_factory.mktemp("preset") / "quick.toml"
    preset.write_bytes(encode_config(load_preset(SMALL.preset, ["recipe.epochs=4"])))
    return msgspec.structs.replace(SMALL, preset=str(preset))


@pytest.fixture(scope="module")
def folder(quick: DemoOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    run_demo(out, quick)
    return out


def test_it_leaves_a_report_a_picture_and_proven_bundles(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    names = [candidate["name"] for candidate in report["parity"]["candidates"]]
    assert names == list(BUILT)
    assert report["passed"] == (report["parity"]["verdict"] == "passed")
    assert report["pixels"]["queries"] == 24
    assert report["position_error"]["median"] >= 0
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 500
    for precision in BUILT:
        assert len(read_manifest(folder / "bundles" / precision).parity) == 1


def test_it_leaves_the_readmes_table(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())["parity"]
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table_of(folder / "table.md")]
    readme = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table_of(ROOT / "README.md")]
    assert readme[0] == head
    assert [row[0] for row in readme[2:]] == [row[0] for row in rows] == ["PyTorch", *BUILT]
    assert float(rows[0][1]) == pytest.approx(100 * report["reference"]["recall"]["at_1"], abs=0.05)
    assert [row[-1] for row in rows[1:]] == [
        "accepted" if each["gate"]["accepted"] else each["gate"]["verdict"] for each in report["candidates"]
    ]


def table_of(page: Path) -> list[str]:
    """The lines of the page's first table."""
    lines = page.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| model |"))
    return [line for line in lines[first : first + 6] if line.startswith("|")]


def test_a_second_run_reuses_finished_steps(folder: Path, quick: DemoOptions) -> None:
    trained = (folder / "run" / "last.safetensors").stat()
    (folder / "report.json").unlink()
    announced: list[str] = []
    report = run_demo(folder, quick, announce=announced.append)
    assert sum("reusing" in line for line in announced) == 8
    assert (folder / "run" / "last.safetensors").stat() == trained
    assert (folder / "report.json").is_file()
    assert report.seconds["Train"] == 0


def test_another_demos_folder_is_not_mixed_up(folder: Path, quick: DemoOptions) -> None:
    with pytest.raises(OutputExists, match="--fresh"):
        run_demo(folder, msgspec.structs.replace(quick, seed=1))


def test_fresh_never_removes_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExists, match="not empty"):
        run_demo(tmp_path, SMALL, fresh=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_steps_after_a_removed_one_are_repeated(folder: Path, quick: DemoOptions) -> None:
    shutil.rmtree(folder / "run")
    announced: list[str] = []
    report = run_demo(folder, quick, announce=announced.append)
    assert sum("reusing" in line for line in announced) == 2
    checkpoint = sha256(folder / "run" / "last.safetensors")
    assert all(read_manifest(folder / "bundles" / name).source.sha256 == checkpoint for name in BUILT)
    assert report.parity.candidates


def test_fresh_leaves_a_strangers_demo_json_and_its_neighbours_alone(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"slides": 12}')
    with pytest.raises(OutputExists):
        run_demo(tmp_path, SMALL, fresh=True)
    assert (tmp_path / "demo.json").read_text() == '{"slides": 12}'


def test_fresh_removes_only_files_of_the_demo(folder: Path, quick: DemoOptions) -> None:
    (folder / "notes.txt").write_text("mine")

    def stop(step: str) -> None:
        raise Stop(step)

    with pytest.raises(Stop):
        run_demo(folder, quick, fresh=True, announce=stop)
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "demo.json"}
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_whole_demo_reaches_its_recall_and_every_engine_keeps_it(tmp_path: Path, seed: int) -> None:
    report = run_demo(tmp_path, DemoOptions(seed=seed))
    assert report.parity.reference.recall.at_1 >= 0.5
    assert report.parity.reference.recall.at_1 > 3 * report.pixels.at_1
    assert report.passed
