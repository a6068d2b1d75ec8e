"""The how-to pages work: their commands run in order, except the ones that need hardware or data."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bags import BEGAN, CAMERA, GNSS, image, nav_sat_fix, write_bag
from checkout import ROOT
from maps import UTM, picture, write_map
from official import polar_shapes, state_dict, write_release_file
from PIL import Image
from rasterio import Affine

HOWTO = ROOT / "docs" / "howto"
PROGRAM = str(Path(sys.executable).with_name("geodtr-export"))
MAY_END_WITH = {"parity": {0, 3}, "bench": {0, 1}}
"""Exit codes beside 0: few pairs do not decide, and on a busy machine no engine is surely faster."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(line: str, folder: Path) -> None:
    command = shlex.split(line, comments=True)[1:]
    done = subprocess.run([PROGRAM, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in MAY_END_WITH.get(command[0], {0}), (line, done.stderr)


def follow(page: str, folder: Path) -> None:
    """Run a page's commands in `folder`, section by section; a section that contains `Not run: needs` is left out."""
    for section in re.split(r"^## ", (HOWTO / page).read_text(), flags=re.M):
        if "Not run: needs" not in section:
            for line in re.findall(r"^    (geodtr-export .*)$", section, re.M):
                run(line, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages call their files: pairs, a run, bundles, panoramas."""
    for line in (
        "geodtr-export world pairs --pairs 60 --size 32x128",
        "geodtr-export world held-out --pairs 60 --size 32x128 --region plateau",
        "geodtr-export train --preset world-tiny --data pairs:pairs --epochs 2 --out run",
        "geodtr-export build-engine run/last.safetensors --precision fp32 --out engine",
        "geodtr-export build-engine engine --precision same --out float",
    ):
        run(line, tmp_path)
    (tmp_path / "panoramas").symlink_to("held-out/ground")
    (tmp_path / "reference").symlink_to("run")
    return tmp_path


def test_a_geotiff(folder: Path) -> None:
    east, north = 600_000, 5_330_000
    for name, top in (("ortho.tif", north), ("north.tif", north + 150)):
        write_map(folder / name, picture(300, 300), UTM, Affine(0.5, 0, east, 0, -0.5, top))
    table = folder / "held-out" / "pairs.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "lat": 48.1147, "lon": 10.3445} for row in rows)  # on the map
    follow("geotiff.md", folder)
    assert json.loads((folder / "fixes.geojson").read_text())["features"]


def test_a_drone_that_looks_down(folder: Path) -> None:
    follow("nadir.md", folder)
    assert len((folder / "fixes.jsonl").read_text().splitlines()) == 6


def test_a_jetson_s_bundles_are_built_on_a_workstation(folder: Path) -> None:
    follow("jetson.md", folder)


def test_an_autopilot_may_be_absent(folder: Path) -> None:
    follow("autopilot.md", folder)
    assert (folder / "try.tlog").stat().st_size > 0


def test_recordings(folder: Path) -> None:
    sent = list[tuple[str, Any]]()
    with (folder / "held-out" / "pairs.csv").open(newline="") as table:
        for second, row in enumerate(islice(csv.DictReader(table), 6)):
            sent.append((GNSS, nav_sat_fix(float(row["lat"]), float(row["lon"]), BEGAN + second)))
            with Image.open(folder / "held-out" / row["ground"]) as picture:
                sent.append((CAMERA, image(np.asarray(picture.convert("RGB")), BEGAN + second)))
    (file,) = write_bag(folder / "drive", sent).glob("*.mcap")
    shutil.copy(file, folder / "drive.mcap")
    follow("recordings.md", folder)
    assert len((folder / "drive.jsonl").read_text().splitlines()) == 6
    assert (folder / "answers.mcap").stat().st_size > 10_000


def test_a_repository_for_triton(folder: Path) -> None:
    follow("triton.md", folder)
    assert len(list((folder / "models").iterdir())) == 3


def test_ci(folder: Path) -> None:
    follow("ci.md", folder)
    snippets = re.findall(r"^```python\n(.*?)^```", (HOWTO / "ci.md").read_text(), re.M | re.S)
    (folder / "test_engine.py").write_text("\n".join(snippets).replace("> 0.5", ">= 0"))  # of two epochs
    line = [sys.executable, "-m", "pytest", "-q", "--geodtr-report", "reports", "test_engine.py"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert list((folder / "reports").glob("*.html"))


def test_an_official_checkpoint(cvusa_sample: Path, tmp_path: Path) -> None:
    write_release_file(tmp_path / "model.pth", state_dict(polar_shapes()))
    (tmp_path / "CVUSA").symlink_to(cvusa_sample)
    (tmp_path / "panoramas").symlink_to(cvusa_sample / "streetview" / "panos")
    follow("official-checkpoint.md", tmp_path)
