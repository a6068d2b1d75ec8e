"""Engines of every backend and precision that runs here, on pairs that their model never saw."""

from pathlib import Path

import pytest
from conftest import Trained

from geodtr import BuildRequest, Calibration, build_engine
from geodtr.export.backends.options import BACKEND_OPTIONS
from geodtr.export.build.precisions import plan_of
from geodtr.export.calibration_pool import pool_of
from geodtr.export.demo import DemoOptions, run_demo
from geodtr.export.model import Model, open_model
from geodtr.export.parity import Gates, ParityResult, compare
from geodtr.export.parity.result import Candidate
from geodtr.runtime.names import Backend, Precision
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.world.dataset import WorldSet, write_world

BUILT: tuple[tuple[Backend, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "fp16"),
    ("onnxruntime", "int8"),
    ("onnxruntime", "fp8"),
    ("openvino", "fp32"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
)
ACCEPTING = Gates(accept_undecided=True, max_drop={"fp16": 0.5, "int8": 1, "fp8": 1})
"""So few pairs cannot prove a drop within half a point, and by chance the measured one may be beyond it."""
each_engine = pytest.mark.parametrize("number", range(len(BUILT)), ids=["-".join(each) for each in BUILT])


def build(
    exported: Path, calibration: PairSet, keep_cosine: float | None, root: Path, backend: Backend, precision: Precision
) -> Model:
    plan = plan_of(precision, Calibration(pool_of(calibration)), keep_cosine=keep_cosine)
    out = root / f"{backend}-{precision}"
    return open_model(build_engine(BuildRequest(exported, out, BACKEND_OPTIONS[backend](), plan)).path)


def check(candidate: Candidate) -> None:
    assert candidate.gate.verdict == "passed", candidate.gate.reasons
    assert candidate.stages[-1].name == "engine"


@pytest.fixture(scope="module")
def small(trained: Trained, many_pairs: PairSet, tmp_path_factory: pytest.TempPathFactory) -> ParityResult:
    root = tmp_path_factory.mktemp("engines")
    engines = []
    for backend, precision in BUILT:
        if backend == "onnxruntime" and precision in trained.bundles:
            engines.append(open_model(trained.bundles[precision].path))
            continue
        # Fp8 by its default loses more than its gate allows networks so small.
        keep_cosine = 0.9998 if precision == "fp8" else None
        engines.append(build(trained.onnx.path, trained.train_set, keep_cosine, root, backend, precision))
    return compare(open_model(trained.checkpoint), engines, many_pairs.first(2000), gates=ACCEPTING)


@each_engine
def test_every_engine_of_a_small_model_keeps_its_recall(small: ParityResult, number: int) -> None:
    assert small.figures.pairs == 2000
    assert small.figures.reference.recall.at_1 > 0.15
    check(small.candidates[number])
    smallest = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98}.get(BUILT[number][1], 0)
    assert small.candidates[number].smallest_cosine >= smallest


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> ParityResult:
    root = tmp_path_factory.mktemp("demo")
    run_demo(root / "demo", DemoOptions())
    write_world(root / "held-out", WorldSet(pairs=2000, region="plateau"))
    train_set = read_pairs(root / "demo" / "world" / "train")
    # Fp8 by its default loses more than its gate allows networks so small.
    engines = [build(root / "demo" / "onnx", train_set, 0.9995, root, *each) for each in BUILT]
    gates = Gates(accept_undecided=True, max_drop={"fp16": 0.5})
    return compare(open_model(root / "demo" / "run"), engines, read_pairs(root / "held-out"), gates=gates)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@each_engine
def test_every_engine_of_the_demo_keeps_its_recall(demo: ParityResult, number: int) -> None:
    assert demo.figures.pairs == 2000
    check(demo.candidates[number])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_so_many_pairs_are_enough_to_be_sure_of_a_point(demo: ParityResult) -> None:
    for candidate in demo.candidates:
        assert candidate.gate.high < 0.01
