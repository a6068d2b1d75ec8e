"""Every model of the family becomes engines as GeoDTR does: the same parity, the same parser, the same report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from conftest import Outcome, Trained, World
from nvidia import build_plan
from tensorrt_on_fakes import shake

from geodtr import BuildRequest, Bundle, Calibration, OpenVinoOptions, TensorRtOptions, build_engine
from geodtr.export.build.precisions import plan_of
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.model import open_model
from geodtr.export.parity import Gates, compare
from geodtr.export.precision.write import CalibrationPlan, write_quantised, write_typed
from geodtr.runtime.names import BRANCHES, Precision
from geodtr.runtime.spec import Preprocessing
from geodtr.training.data.pair_set import PairSet
from geodtr.training.loop import train
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.geodtr.geodtr_plus import GeoDTRPlusConfig
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset

PRESETS = (
    *("world-geodtr-plus", "world-sample4geo", "world-safa", "world-l2ltr", "world-transgeo", "world-transgeo-stage2"),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("world-cvft", "world-dsm", "world-cde", "world-fusiongan")
    ),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """A model that was barely trained, its graphs, and pairs of the generated world."""

    preset: str
    checkpoint: Path
    onnx: Bundle
    pairs: PairSet


@pytest.fixture(scope="module", params=PRESETS)
def exported(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp(request.param)
    train_set, settings = world.train_set.first(96), ["recipe.epochs=1"]
    first = request.param.removesuffix("-stage2")
    if getattr(load_preset(first).model, "layers", 0) > 2:
        settings.append("model.layers=2")
    if first != request.param:
        settings.append(f"recipe.start={train(load_preset(first, settings), train_set, root / 'stage1')}")
    checkpoint = train(load_preset(request.param, settings), train_set, root / "run")
    return Exported(request.param, checkpoint, export_checkpoint(checkpoint, root / "onnx"), world.test_set)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_an_engine_keeps_the_model_s_descriptors_and_recall(
    exported: Exported, tmp_path: Path, precision: Precision
) -> None:
    plan = plan_of(precision, Calibration(pool_of(exported.pairs), images=32))
    bundle = build_engine(BuildRequest(exported.onnx.path, tmp_path / precision, plan=plan))
    gates = Gates(accept_undecided=True)
    (found,) = compare(
        open_model(exported.checkpoint), [open_model(bundle.path)], exported.pairs, gates=gates
    ).candidates
    assert found.gate.verdict == "passed", found.gate.reasons
    smallest = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.98}[precision]
    for branch in found.branches:
        assert branch.counted_cosine > smallest
        if exported.preset.endswith("-stage2") and branch.branch == "aerial":
            assert branch.patches is not None
            assert branch.patches.others <= {"fp32": 0, "fp16": 0.02, "int8": 0.1}[precision]
            assert branch.patches.smallest_cosine > smallest
        else:
            assert branch.patches is None
    if precision == "int8":
        quantised = bundle.manifest.quantisation
        assert quantised is not None
        assert len(quantised.kept_float) < quantised.operators


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino_takes_every_model(exported: Exported, tmp_path: Path, precision: Precision) -> None:
    """A build compares the engines' descriptors with their graphs'."""
    plan = plan_of(precision, Calibration(pool_of(exported.pairs), images=16))
    build_engine(BuildRequest(exported.onnx.path, tmp_path / precision, OpenVinoOptions(), plan))


@pytest.mark.usefixtures("nvidia")
@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_nvidias_builder_takes_every_precision(exported: Exported, tmp_path: Path, precision: Precision) -> None:
    if precision == "int8":
        plan = CalibrationPlan(pool_of(exported.pairs.first(16)), keep_cosine=0.5)
        write_quantised(exported.onnx, plan, precision, "tensorrt", tmp_path)
    else:
        write_typed(exported.onnx, precision, tmp_path)
    for branch in BRANCHES:
        spec = exported.onnx.manifest.engine(branch).spec
        assert len(build_plan(tmp_path / f"{branch}.onnx", spec, TensorRtOptions())) > 10_000


@pytest.mark.usefixtures("nvidia")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(("model.bottleneck=false", "model.mask=normalised"), marks=pytest.mark.slow),
        ("model.mask=orthogonal", "model.layers=0"),
    ],
)
def test_other_layout_extractors_of_geodtr_plus_are_exported_too(tmp_path: Path, settings: tuple[str, ...]) -> None:
    config = load_preset("world-geodtr-plus", (*settings, "model.backbone.blocks=[1, 1, 1]"))
    assert isinstance(config.model, GeoDTRPlusConfig)
    torch.manual_seed(0)
    network = build_model(config.model, config.ground, config.aerial)
    shake(network)
    save_checkpoint(tmp_path / "m.safetensors", network, "random weights")
    bundle = export_checkpoint(tmp_path / "m.safetensors", tmp_path / "onnx")
    (tmp_path / "half").mkdir()
    write_typed(bundle, "fp16", tmp_path / "half")
    for branch in BRANCHES:
        spec = bundle.manifest.engine(branch).spec
        assert build_plan(tmp_path / "half" / f"{branch}.onnx", spec, TensorRtOptions())


def test_the_manifest_holds_what_the_model_does_to_images(exported: Exported) -> None:
    config = load_preset(exported.preset)
    wanted: dict[str, Preprocessing] = {"ground": config.ground, "aerial": config.aerial}
    for branch in BRANCHES:
        assert exported.onnx.manifest.engine(branch).spec.preprocessing == wanted[branch]
        graph = onnx.load(str(exported.onnx.path / f"{branch}.onnx")).graph
        assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert [side.dim_value for side in graph.input[0].type.tensor_type.shape.dim][1:] == list(wanted[branch].shape)


def test_no_graph_reads_its_batch_size(exported: Exported, trained: Trained) -> None:
    """With it, OpenVINO loses the bias of a convolution that is quantised."""
    for bundle in (exported.onnx, trained.onnx):
        for branch in BRANCHES:
            operators = {node.op_type for node in onnx.load(str(bundle.path / f"{branch}.onnx")).graph.node}
            assert not operators & {"Shape", "Size", "Expand", "ConstantOfShape"}


def test_no_transpose_undoes_another(exported: Exported) -> None:
    """What lies between may be rounded to 8 bits: what passes a ConvNeXt's block unchanged was, at every block."""
    for branch in BRANCHES:
        graph = onnx.load(str(exported.onnx.path / f"{branch}.onnx")).graph
        transposes = {node.output[0]: node for node in graph.node if node.op_type == "Transpose"}
        for node in transposes.values():
            if before := transposes.get(node.input[0]):
                order = [before.attribute[0].ints[axis] for axis in node.attribute[0].ints]
                assert order != sorted(order)


def test_quantised_by_openvino_a_convolution_keeps_its_bias(world: World, tmp_path: Path) -> None:
    """A build compares its engines with their graphs: with the bias lost, the median cosine was 0.68."""
    config = load_preset("world-transgeo", ["model.layers=1"])
    torch.manual_seed(0)
    network = build_model(config.model, config.ground, config.aerial)
    for name, values in network.named_parameters():
        if name.endswith("tokens.embedding.bias"):
            torch.nn.init.normal_(values)
    save_checkpoint(tmp_path / "m.safetensors", network, "random weights")
    plan = plan_of("int8", Calibration(pool_of(world.train_set), images=8))
    build_engine(BuildRequest(tmp_path / "m.safetensors", tmp_path / "bundle", OpenVinoOptions(), plan))


def test_evaluate_takes_it_as_any_checkpoint(exported: Exported, cli: Callable[..., Outcome]) -> None:
    evaluated = cli("evaluate", exported.checkpoint, "--data", exported.pairs.name)
    assert evaluated.code == 0, evaluated.err
