"""The demo's model in every backend and precision that runs here, on held-out pairs: minutes."""

import pytest

from geodtr.export.build.builder import BuildOptions, make_builder
from geodtr.export.calibration_pool import pool_of
from geodtr.export.demo import DemoOptions, run_demo
from geodtr.export.engine_builder import build_engine
from geodtr.export.model import open_model
from geodtr.export.parity import ParityResult, compare
from geodtr.export.precision import QUANTISED, CalibrationPlan
from geodtr.runtime.names import Backend, Precision
from geodtr.training.data.pairs_csv import read_pairs
from geodtr.training.world.dataset import WorldSet, write_world

PAIRS = 2000
BUILT: tuple[tuple[Backend, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "fp16"),
    ("onnxruntime", "int8"),
    ("onnxruntime", "fp8"),
    ("openvino", "fp32"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ParityResult:
    root = tmp_path_factory.mktemp("demo")
    run_demo(root / "demo", DemoOptions())
    pool = pool_of(read_pairs(root / "demo" / "world" / "train"))
    write_world(root / "held-out", WorldSet(pairs=PAIRS, region="plateau"))
    candidates = []
    for backend, precision in BUILT:
        # Fp8 by its default loses more than its gate allows a network so small.
        keep = DemoOptions().int8_keep_cosine if precision in QUANTISED else None
        bundle = build_engine(
            root / "demo" / "onnx",
            root / f"{backend}-{precision}",
            precision=precision,
            builder=make_builder(backend, BuildOptions()),
            calibration=CalibrationPlan(pool, keep_cosine=keep),
        )
        candidates.append(open_model(bundle.path))
    return compare(open_model(root / "demo" / "run"), candidates, read_pairs(root / "held-out"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(len(BUILT)), ids=["-".join(each) for each in BUILT])
def test_every_engine_of_the_demo_keeps_its_recall_on_pairs_it_never_saw(result: ParityResult, number: int) -> None:
    candidate = result.candidates[number]
    assert result.figures.pairs == PAIRS
    assert candidate.gate.verdict == "passed", candidate.gate.reasons
    assert candidate.stages[-1].name == "engine"


@pytest.mark.slow
def test_so_many_pairs_are_enough_to_be_sure_of_a_point(result: ParityResult) -> None:
    for candidate in result.candidates:
        assert candidate.gate.high < 0.01
