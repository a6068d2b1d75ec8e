"""The documentation's Python runs as it stands there, in a folder where its files are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from maps import UTM, picture, write_map
from rasterio import Affine
from test_localize import write_drive
from tiny_world import TinyWorld, make_world

ROOT = Path(__file__).resolve().parents[1]
SNIPPETS = {
    f"{page.name}, {number}": snippet
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    if page.name != "parity.md"  # needs a trained run and a pytest of its own: test_parity.py, test_pytest_plugin.py
    for number, snippet in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S), 1)
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def folder(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages call their files."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("bundle", "engine"):
        shutil.copytree(tiny.bundle, folder / name)
    shutil.copytree(tiny.gallery, folder / "map")
    for row in range(9):
        tiny.photograph(folder / "images" / f"{row}.png", row)
    tiny.photograph(folder / "street.png", 3)
    write_drive(tiny, folder)
    write_map(folder / "ortho.tif", picture(300, 300), UTM, Affine(0.5, 0, 600_000, 0, -0.5, 5_330_000))
    return folder


def test_there_is_python_in_the_documentation() -> None:
    pages = {name.partition(",")[0] for name in SNIPPETS}
    assert {"embedding.md", "galleries.md", "localisation.md"} <= pages


@pytest.mark.parametrize("name", SNIPPETS)
def test_it_runs(folder: Path, name: str) -> None:
    line = [sys.executable, "-c", SNIPPETS[name]]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
