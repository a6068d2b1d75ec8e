"""Fixtures that all tests share: shared data if it is available, and one small trained model."""

import gc

gc.disable()  # while modules are imported: what they hold stays, and looking through it takes a fifth of the time

# ruff: noqa: E402
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from build_once import build_once
from checkout import SHARED
from hypothesis import is_hypothesis_test, settings
from tiny_world import TinyWorld, make_world

from geodtr import BuildRequest, Bundle, Calibration, build_engine, open_bundle
from geodtr.cli.main import run
from geodtr.export import timing
from geodtr.export.build.precisions import plan_of
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.parity import comparison
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.folder.reader import FolderGallery, open_folder
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.names import Precision
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.data.references import reference_tiles
from geodtr.training.listener import Listener, Step, Validation
from geodtr.training.run_files import LAST
from geodtr.training.world.dataset import WorldSet, write_world

pytest_plugins = ["signed_archives", "milvus_places"]
if find_spec("torch") is None:
    pytest_plugins += ["lean"]
else:
    pytest_plugins += ["exported_once", "tensorrt_on_fakes", "nvidia", "rtx_on_fakes"]

BUILT: tuple[Precision, ...] = ("fp32", "fp16", "int8")
"""The precisions that the trained model is built in for all tests."""

SEED = int(os.environ.get("GEODTR_TEST_SEED", "0"))
"""Of the trained model: no test may need the one that some seed gives on some machine."""

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
if NIGHTLY:
    settings.register_profile("nightly", derandomize=False, print_blob=True)
    settings.load_profile("nightly")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Test each property on ten times as many examples in the nightly run, in ten rounds."""
    if NIGHTLY and is_hypothesis_test(metafunc.function):
        metafunc.fixturenames.append("nightly_round")
        metafunc.parametrize("nightly_round", range(10))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files that need the trained model last: while one worker trains it, the others have work."""
    needs = {
        item.path for item in items if isinstance(item, pytest.Function) and {"world", "trained"} & {*item.fixturenames}
    }
    items.sort(key=lambda item: item.path in needs)


def pytest_collection_finish() -> None:
    """Keep what the modules hold out of each later collection of garbage. Fewer of them take a tenth less time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def pytest_unconfigure() -> None:
    """Libraries would report as leaked what is kept at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def conformance() -> Path:
    """Official figures of real images; tests that need them are skipped in a clone without them."""
    folder = SHARED / "conformance"
    if not folder.is_dir():
        pytest.skip(f"no official figures at {folder}; set GEODTR_SHARED")
    return folder


@pytest.fixture(scope="session")
def cvusa_sample() -> Path:
    """The root of five real CVUSA pairs; tests that need them are skipped in a clone without them."""
    folder = SHARED / "data" / "cvusa_sample"
    if not folder.is_dir():
        pytest.skip(f"no CVUSA sample at {folder}; set GEODTR_SHARED")
    return folder


@pytest.fixture(scope="session", autouse=True)
def quick_timing() -> Iterator[None]:
    """Time a few milliseconds without pauses, and in parity few images: no test asks how fast this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_TURN", 0.005)
        patch.setattr(timing, "_SETTLE", 0)
        patch.setattr(comparison, "_SPEED_BATCH", 2)
        patch.setattr(comparison, "_SPEED_ROUNDS", 2)
        yield


@pytest.fixture(scope="session", autouse=True)
def as_many_threads() -> Iterator[None]:
    """Give sessions of ONNX Runtime PyTorch's number: threads that wait for others spin, on other workers' cores."""
    make, threads = onnxruntime.SessionOptions, int(os.environ.get("OMP_NUM_THREADS", "0"))

    def options() -> Any:
        session = make()
        session.intra_op_num_threads = threads
        return session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", options)
        yield


@dataclass(frozen=True, slots=True)
class World:
    """Training pairs of the generated world, and test pairs of another region. All workers and runs share the files."""

    train_set: PairSet
    test_set: PairSet


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """For tests that change nothing of it; others make one of their own."""
    return make_world(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def world() -> World:
    return _world()


@pytest.fixture(scope="session")
def many_pairs() -> PairSet:
    """Test pairs of which a single hit decides no verdict: 0.025 points."""
    return read_pairs(build_once("many-pairs", _write_many_pairs) / "test")


@dataclass(frozen=True, slots=True)
class Trained:
    """A small model trained once on the generated world, with its bundles and gallery; each worker has a copy."""

    train_set: PairSet
    test_set: PairSet
    checkpoint: Path
    onnx: Bundle
    bundles: dict[Precision, Bundle]
    gallery: FolderGallery


@pytest.fixture(scope="session")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    # A copy, because parity writes its verdicts into bundles.
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(build_once(f"trained-{SEED}", _train), root, dirs_exist_ok=True)
    return Trained(
        world.train_set,
        world.test_set,
        root / "run" / LAST,
        open_bundle(root / "onnx"),
        {precision: open_bundle(root / precision) for precision in BUILT},
        open_folder(root / "gallery"),
    )


def _world() -> World:
    root = build_once("world", _write_worlds)
    return World(read_pairs(root / "train"), read_pairs(root / "test"))


def _write_worlds(root: Path) -> None:
    write_world(root / "train", WorldSet(pairs=800, height=32, width=128, region="valley"))
    write_world(root / "test", WorldSet(pairs=500, height=32, width=128, region="coast"))


def _write_many_pairs(root: Path) -> None:
    write_world(root / "test", WorldSet(pairs=4000, height=32, width=128, region="coast"))


def _train(root: Path) -> None:
    from geodtr.training.loop import train
    from geodtr.training.presets.load import load_preset

    world = _world()
    checkpoint = train(load_preset("world-tiny", [f"recipe.seed={SEED}"]), world.train_set, root / "run")
    onnx = export_checkpoint(checkpoint, root / "onnx")
    for precision in BUILT:
        plan = plan_of(precision, Calibration(pool_of(world.train_set)), keep_cosine=0.9998)
        build_engine(BuildRequest(onnx.path, root / precision, plan=plan))
    fp32 = open_bundle(root / "fp32")
    tiles = reference_tiles(world.test_set)
    build_gallery(root / "gallery", tiles, fp32.embedder("aerial"), made_by(fp32.manifest))


class Losses(Listener):
    """Records the events of training."""

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


class Stop(Exception):
    """The crash that Stopping stands for."""


class Stopping(Losses):
    """Fails after some steps, like a crash."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def on_step(self, step: Step) -> None:
        super().on_step(step)
        if step.number == self._after:
            raise Stop


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit code of a command and what it printed."""

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
    """Run a command that must be refused and leave no file; return its message."""

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
