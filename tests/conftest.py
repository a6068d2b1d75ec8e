"""Fixtures that all tests share: the shared data where it is there, and one small trained model a run."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from geodtr.cli.main import run
from geodtr.export.build.engine import build_engine
from geodtr.export.build.request import BuildRequest, Calibration, plan_of
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.folder.reader import FolderGallery, open_folder
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.names import Precision
from geodtr.training.config import load_preset
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.pairs_csv import read_pairs
from geodtr.training.data.references import reference_tiles
from geodtr.training.listener import Listener, Step, Validation
from geodtr.training.loop import train
from geodtr.training.world.dataset import WorldSet, write_world

pytest_plugins = ["tensorrt_on_fakes", "nvidia", "rtx_on_fakes"]

BUILT: tuple[Precision, ...] = ("fp32", "fp16", "int8")
"""The precisions that the trained model is built in for all tests."""

SHARED = Path(os.environ.get("GEODTR_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The folder of official figures; its tests are skipped in a clone that has none."""
    folder = SHARED / "conformance"
    if not folder.is_dir():
        pytest.skip(f"no official figures at {folder}; set GEODTR_SHARED")
    return folder


@pytest.fixture(scope="session")
def cvusa_sample() -> Path:
    """The root of five real CVUSA pairs; its tests are skipped in a clone that has none."""
    folder = SHARED / "data" / "cvusa_sample"
    if not folder.is_dir():
        pytest.skip(f"no CVUSA sample at {folder}; set GEODTR_SHARED")
    return folder


@dataclass(frozen=True, slots=True)
class World:
    """Pairs of the generated world, rendered once a run: to train on, and on unseen ground."""

    train_set: PairSet
    test_set: PairSet


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    write_world(root / "train", WorldSet(pairs=800, height=32, width=128, region="valley"))
    write_world(root / "test", WorldSet(pairs=500, height=32, width=128, region="coast"))
    return World(read_pairs(root / "train"), read_pairs(root / "test"))


@dataclass(frozen=True, slots=True)
class Trained:
    """A small model trained once a run on the generated world, with what was made of it."""

    train_set: PairSet
    test_set: PairSet
    checkpoint: Path
    onnx: Bundle
    bundles: dict[Precision, Bundle]
    gallery: FolderGallery


@pytest.fixture(scope="session")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    train_set, test_set = world.train_set, world.test_set
    checkpoint = train(load_preset("world-tiny"), train_set, root / "run")
    onnx = export_checkpoint(checkpoint, root / "onnx")
    bundles = {
        precision: build_engine(
            BuildRequest(
                onnx.path,
                root / precision,
                plan=plan_of(precision, Calibration(pool_of(train_set)), keep_cosine=0.9998),
            )
        )
        for precision in BUILT
    }
    flying = bundles["fp32"]
    build_gallery(root / "gallery", reference_tiles(test_set), flying.embedder("aerial"), made_by(flying.manifest))
    gallery = open_folder(root / "gallery")
    return Trained(train_set, test_set, checkpoint, onnx, bundles, gallery)


class Losses(Listener):
    """Writes down what training tells."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validations: list[Validation] = []
        self.skipped: list[Skipped] = []

    def on_step(self, step: Step) -> None:
        self.losses.append(step.loss)

    def on_validation(self, validation: Validation) -> None:
        self.validations.append(validation)

    def on_skip(self, skipped: Skipped) -> None:
        self.skipped.append(skipped)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run `geodtr-export` with these arguments, as its user would."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        code = exit_.value.code
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    return call


@pytest.fixture
def pairs(world: World, tmp_path: Path) -> Path:
    """A small copy of the test set that a test may damage."""
    folder = tmp_path / "pairs"
    for branch in ("ground", "aerial"):
        (folder / branch).mkdir(parents=True)
        for path in world.test_set.paths("ground" if branch == "ground" else "aerial")[:20]:
            shutil.copy(path, folder / branch / path.name)
    source = world.test_set.pairs[0].ground.parents[1] / "pairs.csv"
    lines = source.read_text().splitlines(keepends=True)[:21]
    (folder / "pairs.csv").write_text("".join(lines))
    return folder


@pytest.fixture
def refused(cli: Callable[..., Outcome], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; returns its one message."""

    def call(*arguments: object) -> str:
        before = _tree(tmp_path)
        result = cli(*arguments)
        assert result.code == 2, result
        assert "Traceback" not in result.err
        assert _tree(tmp_path) == before, "something was left behind"
        return result.err

    return call


def _tree(root: Path) -> set[tuple[str, bytes]]:
    """Every file below `root` with its content."""
    return {(str(path), path.read_bytes() if path.is_file() else b"") for path in root.rglob("*")}
