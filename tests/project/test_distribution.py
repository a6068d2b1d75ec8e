"""Wheel and source distribution are complete, and the wheel runs outside a checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from PIL import Image
from tiny_bundle import write_bundle
from tiny_gallery import pixels_of

import geodtr

ROOMS = ("runtime", "calibration", "training", "export", "cli")
BESIDE = ("tests", "docs", "benchmarks", "tools", "examples", ".ci")
UNREACHABLE = ("No matching distribution", "Could not find a version", "Connection", "Temporary failure", "Max retries")

pytestmark = pytest.mark.slow


def fetched(line: Sequence[str | Path]) -> None:
    """Run what downloads packages; skip the test where none can be had."""
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if done.returncode and any(one in output for one in UNREACHABLE):
        pytest.skip(f"packages cannot be downloaded here: {output[-500:]}")
    assert done.returncode == 0, output


@dataclass(frozen=True, slots=True)
class Built:
    wheel: Path
    source: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both, from a copy of the source: the wheel is built out of the source distribution."""
    folder = tmp_path_factory.mktemp("distribution")
    copy = folder / "copy"
    for name in ("geodtr", *ROOMS, *BESIDE):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    fetched([sys.executable, "-m", "build", "--outdir", folder, copy])
    return Built(*folder.glob("*.whl"), *folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel and its `cpu` extra alone."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pinned = ("--constraint", ROOT / "constraints.txt")
    fetched([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *pinned, f"{built.wheel}[cpu]"])
    return folder / "bin"


def printed(programs: Path, folder: Path, *line: str, code: int = 0) -> str:
    """What a command prints in `folder`, where nothing of the checkout is on any path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    path = f"{programs}{os.pathsep}{clean['PATH']}"
    words = [f"{programs}/{line[0]}", *line[1:]]
    done = subprocess.run(words, cwd=folder, env={**clean, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(built: Built) -> None:
    expected = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for folder, package in {"geodtr": "geodtr", **{room: f"geodtr/{room}" for room in ROOMS}}.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"geodtr/py.typed", "geodtr/training/presets/geodtr-cvusa.toml"} <= held


def test_the_wheel_names_its_licence(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        information = f"geodtr_export-{geodtr.__version__}.dist-info"
        metadata = wheel.read(f"{information}/METADATA").decode()
        assert wheel.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0" in metadata
    assert f"Version: {geodtr.__version__}" in metadata


def test_the_source_distribution_holds_the_tests_and_the_documentation(built: Built) -> None:
    with tarfile.open(built.source) as source:
        held = {name.partition("/")[2] for name in source.getnames()}
    for name in BESIDE:
        paths = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.is_file()}
        assert {path.as_posix() for path in paths if "__pycache__" not in path.parts} <= held
    assert {"LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile", "constraints.txt", ".ci/run"} <= held


def test_the_installed_commands_work_outside_the_checkout(environment: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    Image.fromarray(pixels_of("street")).save(tmp_path / "street.png")
    assert printed(environment, tmp_path, "geodtr-export", "--version") == f"{geodtr.__version__}\n"
    assert "build-engine" in printed(environment, tmp_path, "python", "-m", "geodtr", "--help")
    assert "onnxruntime" in printed(environment, tmp_path, "geodtr-export", "doctor", "bundle")
    assert "fp32" in printed(environment, tmp_path, "geodtr-export", "inspect", "bundle")
    printed(
        environment,
        tmp_path,
        "geodtr-export",
        *["embed", "bundle", "street.png", "--branch", "ground", "--out", "d.npy"],
    )
    assert np.load(tmp_path / "d.npy").shape == (1, 16)


def test_what_is_missing_there_is_installed_from_the_wheel(environment: Path, built: Built, tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    message = printed(environment, tmp_path, "geodtr-export", *["import-checkpoint", "a.pth", "--out", "b"], code=2)
    assert f"pip install '{built.wheel}[train]'" in message


def test_it_knows_its_version_without_its_metadata(environment: Path, tmp_path: Path) -> None:
    information = next((environment.parent / "lib").glob("python*/site-packages/geodtr_export-*.dist-info"))
    information.rename(tmp_path / information.name)
    try:
        assert printed(environment, tmp_path, "geodtr-export", "--version") == f"{geodtr.__version__}\n"
    finally:
        (tmp_path / information.name).rename(information)
