"""What a vehicle installs, `geodtr-export[cpu]`: small, nothing of training in it, and all the commands that fly."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import write_bundle
from tiny_gallery import pixels_of

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 200e6
"""Bytes of the installed files; the byte code that pip makes of them is a cache, which --no-compile leaves out."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with `.[cpu]` and nothing else; its folder of programs."""
    folder = tmp_path_factory.mktemp("lean") / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    programs = folder / "bin"
    install = [f"{programs}/python", "-m", "pip", "install", "--quiet", "--no-compile"]
    asked = ["--constraint", f"{ROOT}/constraints.txt", f"{ROOT}[cpu]"]
    done = subprocess.run([*install, *asked], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the packages cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    return programs


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a bundle and images, in which commands run."""
    write_bundle(tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    for number in range(5):
        Image.fromarray(pixels_of(str(number))).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def packages(lean: Path) -> list[Path]:
    return sorted((lean.parent / "lib").glob("python*/site-packages/*"))


def test_it_is_small(lean: Path) -> None:
    own = {"pip", "setuptools", "_distutils_hack", "pkg_resources"}
    files = [
        path
        for package in packages(lean)
        if package.name.partition("-")[0] not in own
        for path in (package, *package.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    ]
    assert 50e6 < sum(path.stat().st_size for path in files) < LARGEST


def test_it_brings_nothing_of_training_or_export(lean: Path) -> None:
    there = {package.name for package in packages(lean)}
    assert {"numpy", "PIL", "msgspec", "onnxruntime", "geodtr"} <= there
    assert not there & {"torch", "torchvision", "onnx", "onnxscript", "onnxslim", "scipy", "matplotlib", "cv2", "sympy"}


def test_the_commands_that_fly_work_there(lean: Path, at_work: Path) -> None:
    for line in (
        "gallery build bundle images --out gallery",
        "gallery info gallery",
        "gallery verify gallery",
        "gallery export gallery --out gallery.geojson",
        "embed bundle images --branch aerial --out d.npy",
        "inspect bundle",
        "doctor bundle",
        "bench bundle --batch 1 --rounds 2 --layers",
        "localize images/3.png --bundle bundle --gallery gallery",
    ):
        done = subprocess.run(
            [lean / "geodtr-export", *line.split()], capture_output=True, text=True, check=False, cwd=at_work
        )
        assert done.returncode == 0, (line, done.stderr)
    assert "3.png" in done.stdout
    assert np.load(at_work / "d.npy").shape == (5, 16)


def test_the_runtime_is_imported_at_once(lean: Path) -> None:
    clock = "import time; start = time.perf_counter(); import geodtr.runtime; print(time.perf_counter() - start)"
    line = [str(lean / "python"), "-c", clock]
    times = [float(subprocess.run(line, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert median(times) < 0.2
