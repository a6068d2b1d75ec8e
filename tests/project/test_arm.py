"""On an ARM processor, the lean runtime gives the answers that it gives here: run by QEMU, in a Debian for aarch64."""

import json
import shutil

import numpy as np
import pytest
from arm_system import CPUS, ArmSystem, make_system
from conftest import BUILT, Trained

from geodtr import Localizer, open_bundle
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.folder.reader import open_folder
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.names import Precision
from geodtr.training.data.references import reference_tiles

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

IMAGES = 12
LEAST_COSINE: dict[Precision, float] = {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.995}
"""Between a descriptor there and here. Processors with half precision compute fp16 in it, these here in float32; in
int8, a value between two steps may be rounded to either."""


@pytest.fixture(scope="module")
def arm(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> ArmSystem:
    """The system, whose /data holds bundles, images, and galleries that were built here."""
    data = tmp_path_factory.mktemp("data")
    for precision in BUILT:
        shutil.copytree(trained.bundles[precision].path, data / precision)
    for branch in ("ground", "aerial"):
        (data / branch).mkdir()
        for pair in trained.test_set.pairs[:IMAGES]:
            shutil.copy(getattr(pair, branch), data / branch)
    bundle = open_bundle(data / "fp32")
    tiles, aerial = reference_tiles(trained.test_set), bundle.embedder("aerial")
    build_gallery(data / "map", tiles, aerial, made_by(bundle.manifest), storage="int8")
    return make_system(tmp_path_factory.mktemp("arm"), data)


@pytest.mark.parametrize("cpu", CPUS)
def test_it_computes_exactly(arm: ArmSystem, cpu: str) -> None:
    done = arm.program("doctor", cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exact: float32 products" in done.stdout
    assert "INT8 as cpu-8bit" in done.stdout


@pytest.mark.parametrize("cpu", CPUS)
def test_descriptors_are_as_on_this_machine(arm: ArmSystem, cpu: str) -> None:
    for precision in BUILT:
        there = arm.data / f"{precision}-{cpu}.npy"
        done = arm.program(f"embed {precision} aerial --branch aerial --out {there.name}", cpu)
        assert done.returncode == 0, done.stderr
        here = embed_files(
            open_bundle(arm.data / precision).embedder("aerial"), sorted((arm.data / "aerial").iterdir())
        )
        assert (here * np.load(there)).sum(axis=1).min() > LEAST_COSINE[precision], precision


@pytest.mark.parametrize("cpu", CPUS)
def test_a_copied_gallery_gives_the_hits_of_this_machine(arm: ArmSystem, cpu: str) -> None:
    done = arm.program("localize ground --bundle fp32 --gallery map --top 5 --json", cpu)
    assert done.returncode == 0, done.stderr
    there = [json.loads(line)["candidates"] for line in done.stdout.splitlines()]
    with Localizer.open(arm.data / "fp32", arm.data / "map") as localizer:
        here = [each.candidates for each in localizer.locate_frames(arm.data / "ground")]
    assert len(there) == IMAGES
    assert [[hit["row"] for hit in each] for each in there] == [[hit.row for hit in each] for each in here]
    scores = [[hit["score"] for hit in each] for each in there]
    np.testing.assert_allclose(scores, [[hit.score for hit in each] for each in here], atol=1e-6)


def test_galleries_are_verified_and_built_there(arm: ArmSystem) -> None:
    assert "map: passed" in arm.program("gallery verify map", "cortex-a76").stdout
    done = arm.program("gallery build fp32 aerial --out built --storage int8", "cortex-a76")
    assert done.returncode == 0, done.stderr
    with open_folder(arm.data / "built") as there, open_folder(arm.data / "map") as here:
        assert len(there) == IMAGES
        rows = np.arange(IMAGES)
        np.testing.assert_allclose(there.descriptors(rows), here.descriptors(rows), atol=1e-6)


def test_its_own_tests_pass_there(arm: ArmSystem) -> None:
    files = ("tests/runtime/test_machine.py", "tests/runtime/test_self_check.py")
    done = arm.run(["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *files], "cortex-a76", "/src")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
