"""Faults that engines have had, planted one at a time: parity fails each of them, and names what is wrong.

Every bundle passes before the fault is planted, so that nothing else can be the reason.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import planted_faults as planted
import pytest
from conftest import Outcome, Trained

from geodtr.export.build.source import export_checkpoint
from geodtr.export.model import open_model
from geodtr.export.parity import Gates, ParityResult, compare
from geodtr.export.parity.measurements import StageName
from geodtr.export.parity.result import CheckName
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.data.pair_set import PairSet

PAIRS = 150
Judge = Callable[..., ParityResult]
WITHIN_A_LEVEL = Gates(max_drop={"fp32": 2.0}, least_cosine={"fp32": 0.999}, accept_undecided=True)
"""Thresholds for a graph with the polar transform: its pixels equal the runtime's within one level of 255."""


@pytest.fixture(scope="module")
def bundles(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    raw = tmp_path_factory.mktemp("raw") / "raw"
    export_checkpoint(trained.checkpoint, raw, raw_tiles=64)
    return {"raw": raw, **{precision: bundle.path for precision, bundle in trained.bundles.items()}}


@pytest.fixture
def judge(trained: Trained) -> Judge:
    """Compare a bundle with the exported model on the first pairs."""
    reference, pairs = open_model(trained.onnx.path), trained.test_set.first(PAIRS)
    return lambda bundle, **options: compare(reference, [open_model(bundle)], pairs, **{"stages": False, **options})


def failed(result: ParityResult) -> set[CheckName]:
    (candidate,) = result.candidates
    assert (candidate.next_step is None) == (candidate.gate.verdict == "passed")
    return {check.name for check in candidate.gate.checks if check.verdict == "failed"}


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "raw"])
def test_without_a_fault_they_pass(trained: Trained, many_pairs: PairSet, bundles: dict[str, Path], name: str) -> None:
    gates = WITHIN_A_LEVEL if name == "raw" else Gates(accept_undecided=True)
    reference, engine = open_model(trained.onnx.path), open_model(bundles[name])
    result = compare(reference, [engine], many_pairs, stages=False, gates=gates)
    assert result.passed, result.candidates[0].gate.reasons


@pytest.mark.parametrize(
    ("fault", "name", "check"),
    [
        (planted.swapped_channels, "fp32", "cosine"),
        (planted.swapped_channels, "int8", "cosine"),
        (planted.bgr, "fp16", "recall"),
        (planted.bgr, "int8", "recall"),
        (planted.missing_normalisation, "fp32", "recall"),
        (planted.missing_normalisation, "int8", "recall"),
        (planted.half_l2_norm, "fp16", "graph"),
        (planted.quantised_arg_max, "int8", "graph"),
        (planted.wrong_dequantisation_scale, "int8", "graph"),
        (planted.permuted_rows, "fp32", "batches"),
        (planted.permuted_rows, "int8", "batches"),
        (planted.column_off, "fp32", "cosine"),
        (planted.column_off, "int8", "cosine"),
        (planted.column_off_in_graph, "raw", "cosine"),
        (planted.other_interpolation, "raw", "cosine"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_is_detected(
    judge: Judge, bundles: dict[str, Path], tmp_path: Path, fault: planted.Fault, name: str, check: CheckName
) -> None:
    bundle = shutil.copytree(bundles[name], tmp_path / "bundle")
    fault(bundle)
    gates = {"gates": WITHIN_A_LEVEL} if name == "raw" else {}
    result = judge(bundle, **gates)
    assert result.verdict == "failed"
    assert check in failed(result)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("number", [0, -1])
def test_one_range_half_as_wide_as_its_values_is_detected(
    judge: Judge, bundles: dict[str, Path], tmp_path: Path, branch: Branch, number: int
) -> None:
    bundle = shutil.copytree(bundles["int8"], tmp_path / "bundle")
    planted.wrong_scale(bundle, number, 0.5, branch)
    assert failed(judge(bundle)) & {"cosine", "promise", "recall"}


def test_what_an_int8_graph_for_tensorrt_leaves_in_half_precision_is_audited(
    trained: Trained, judge: Judge, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    command = ("--precision", "int8", "--dialect", "tensorrt", "--calibration", trained.train_set.name)
    built = cli("build-engine", trained.onnx.path, *command, "--keep-cosine", 0.99, "--out", bundle)
    assert built.code == 0, built.err
    assert "graph" not in failed(judge(bundle))
    planted.half_l2_norm(bundle)
    assert "graph" in failed(judge(bundle))


def test_another_interpolation_in_the_manifest_is_detected_although_no_image_is_resized(
    judge: Judge, bundles: dict[str, Path], tmp_path: Path
) -> None:
    bundle = shutil.copytree(bundles["fp32"], tmp_path / "bundle")
    manifest = read_manifest(bundle)
    how = msgspec.structs.replace(manifest.ground.spec.preprocessing, resize="area")
    spec = msgspec.structs.replace(manifest.ground.spec, preprocessing=how)
    write_manifest(
        bundle, msgspec.structs.replace(manifest, ground=msgspec.structs.replace(manifest.ground, spec=spec))
    )
    result = judge(bundle)
    assert failed(result) == {"preprocessing"}
    assert "resize area instead of pillow-bilinear-antialias" in result.candidates[0].gate.reasons[0]


def test_descriptors_that_are_no_numbers_fail_the_gate_and_count_as_misses(
    trained: Trained, bundles: dict[str, Path], tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    bundle = shutil.copytree(bundles["fp32"], tmp_path / "bundle")
    planted.overflow(bundle)
    result = cli("parity", trained.onnx.path, bundle, "--data", trained.test_set.name, "--limit", 40, "--json")
    assert result.code == 1, result.err
    (candidate,) = json.loads(result.out)["candidates"]
    ground, aerial = candidate["branches"]
    assert (ground["infinite"], aerial["infinite"], aerial["nan"]) == (40, 0, 0)
    assert ground["smallest_cosine"] == 0
    assert candidate["pairings"][0]["recall"]["at_10"] == 0
    assert candidate["gate"]["verdict"] == "failed"


@pytest.mark.parametrize("stage", ["typed", "engine"])
def test_the_step_that_made_the_fault_is_named(
    judge: Judge, bundles: dict[str, Path], tmp_path: Path, stage: StageName
) -> None:
    bundle = shutil.copytree(bundles["int8"], tmp_path / "bundle")
    if stage == "typed":
        planted.missing_normalisation(bundle)
    else:
        planted.compiled_from_another(bundle, planted.missing_normalisation)
    gate = judge(bundle, stages=True).candidates[0].gate
    assert (gate.verdict, gate.blamed) == ("failed", stage)


def test_the_layer_that_made_the_fault_is_named(judge: Judge, bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = shutil.copytree(bundles["int8"], tmp_path / "bundle")
    scale = planted.wrong_scale(bundle, -1, 0.1)
    (candidate,) = judge(bundle, layers=True).candidates
    ground = [layer for layer in candidate.layers if layer.branch == "ground"]
    first = next(layer for layer in ground if layer.cosine < 0.99)
    assert first.node in planted.readers(bundle, scale)
    assert first.inputs_cosine > 0.99
