"""The installation on a vehicle, `geodtr-export[cpu]`: small, without training, with all commands of the runtime."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from checkout import ROOT
from PIL import Image
from tiny_bundle import write_bundle
from tiny_gallery import pixels_of

from geodtr import BuildRequest, build_engine
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.data.references import reference_tiles
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset
from geodtr.training.world.dataset import WorldSet, write_world

LARGEST = 200e6
"""Bytes of the installed files, the byte code that pip makes of them included."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Lean:
    """A fresh environment with `.[cpu]` and nothing else: its folder of programs, and what was measured in it with a
    bundle as large as the demo's.
    """

    programs: Path
    measured: dict[str, Any]


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Lean:
    folder = tmp_path_factory.mktemp("lean")
    measured = (*as_large_as_the_demo(folder), "--environment", folder / "environment", "--json")
    line = [sys.executable, f"{ROOT}/benchmarks/footprint.py", *map(str, measured)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode and "pip" in done.stderr.splitlines()[-1]:
        pytest.skip(f"the packages cannot be had here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return Lean(folder / "environment" / "bin", json.loads(done.stdout))


def as_large_as_the_demo(folder: Path) -> tuple[Path, Path, Path]:
    """A bundle, a gallery and an image of the demo's sizes. The weights are drawn at random, which costs the same."""
    config = load_preset("world-demo")
    checkpoint = folder / "model.safetensors"
    save_checkpoint(checkpoint, build_model(config.model, config.ground, config.aerial), "random weights")
    bundle = build_engine(BuildRequest(checkpoint, folder / "engine"))
    write_world(folder / "world", WorldSet(pairs=500, height=config.ground.height, width=config.ground.width))
    pairs = read_pairs(folder / "world")
    build_gallery(folder / "map", reference_tiles(pairs), bundle.embedder("aerial"), made_by(bundle.manifest))
    return bundle.path, folder / "map", pairs.pairs[0].ground


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a bundle and images, in which commands run."""
    write_bundle(tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    for number in range(5):
        Image.fromarray(pixels_of(str(number))).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


newer_than_3_10 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the last ONNX Runtime for Python 3.10 brings SymPy, 65 MB"
)


@newer_than_3_10
def test_it_is_small(lean: Lean) -> None:
    assert lean.measured["byte_code"] > 10e6
    assert 50e6 < lean.measured["files"] + lean.measured["byte_code"] < LARGEST


def test_an_image_is_localised_quickly_in_little_memory(lean: Lean) -> None:
    """In processor time, because the machine may be busy; the documentation has wall-clock times."""

    def rounds(name: str) -> list[float]:
        return [one[name] for one in lean.measured["rounds"]]

    assert min(rounds("processor")) < 1.5
    assert min(rounds("import_runtime")) < 0.2
    assert median(rounds("beyond_the_engine")) < 150e6


@newer_than_3_10
def test_it_contains_nothing_of_training_or_export(lean: Lean) -> None:
    there = {package.name for package in (lean.programs.parent / "lib").glob("python*/site-packages/*")}
    assert {"numpy", "PIL", "msgspec", "nanoarrow", "onnxruntime", "geodtr"} <= there
    training = {"torch", "torchvision", "onnx", "onnxscript", "onnxslim", "scipy", "matplotlib", "cv2", "sympy"}
    assert not there & (training | {"pydantic"})


def test_the_runtime_commands_work_there(lean: Lean, at_work: Path) -> None:
    for line in (
        "gallery build bundle images --out gallery",
        "gallery info gallery",
        "gallery preview images",
        "gallery verify gallery",
        "gallery export gallery --out gallery.geojson",
        "embed bundle images --branch aerial --out d.npy",
        "inspect bundle",
        "doctor bundle",
        "bench bundle --batch 1 --rounds 2 --layers",
        "localize images/3.png --bundle bundle --gallery gallery",
    ):
        done = subprocess.run(
            [lean.programs / "geodtr-export", *line.split()], capture_output=True, text=True, check=False, cwd=at_work
        )
        assert done.returncode == 0, (line, done.stderr)
    assert "3.png" in done.stdout
    command: list[Path | str] = [lean.programs / "geodtr-export", *line.split(), "--picture", "track.png"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=at_work)
    assert refused.returncode == 2
    assert "[plots]" in refused.stderr
    assert np.load(at_work / "d.npy").shape == (5, 16)
