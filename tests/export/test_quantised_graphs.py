"""A quantised graph matches its dialect: by inspection of the file, and when it runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Outcome, Trained

from geodtr import open_bundle
from geodtr.calibration.operators import operators
from geodtr.export.graph.checks import check_fp16
from geodtr.export.graph.structure import QUANTISERS, GraphError
from geodtr.export.precision.fp16 import check_fits
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.names import DIALECTS, Dialect

INTEGERS = {"cpu-7bit": np.uint8, "cpu-8bit": np.uint8, "tensorrt": np.int8}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_of_int8_is_written_by_its_rules_and_keeps_descriptors(
    trained: Trained, cli: Callable[..., Outcome], tmp_path: Path, dialect: Dialect
) -> None:
    if dialect == "cpu-8bit" and not this_cpu().exact_8bit:
        pytest.skip("without VNNI sums of eight bits saturate")
    out = tmp_path / "bundle"
    _build(trained, cli, out, "int8", "--dialect", dialect)
    bundle = open_bundle(out)
    assert bundle.manifest.quantisation is not None
    assert bundle.manifest.quantisation.dialect == dialect
    assert bundle.manifest.quantisation.rest == ("fp16" if dialect == "tensorrt" else "fp32")
    assert all(0 < share < 0.3 for share in bundle.manifest.quantisation.argmax_flips.values())
    assert "wins the saliency's arg-max" in cli("inspect", out).out
    model = onnx.load(str(out / "ground.onnx"))
    onnx.checker.check_model(model, full_check=True)
    stored = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = stored[node.input[2]]
            assert zero.dtype == INTEGERS[dialect]
            assert dialect != "tensorrt" or not zero.any()
            assert stored[node.input[1]].size == 1
    halves = {value.dtype for value in stored.values()} & {np.dtype(np.float16)}
    assert bool(halves) == (dialect == "tensorrt")
    if dialect == "tensorrt":
        check_fp16(model)
        scales = {stored[node.input[1]].dtype for node in model.graph.node if node.op_type in QUANTISERS}
        assert scales == {np.dtype(np.float16)}, "what is dequantised has the type of its scale"
        read = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
        written = {name for node in model.graph.node if node.op_type in ("Conv", "MatMul") for name in node.output}
        assert not read & written, "TensorRT wants the output of a weighted operator left as it is"
        dequantised = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        assert {stored[name].dtype for name in dequantised & set(stored)} == {np.dtype(np.int8)}, "biases stay float"
    weights = [stored[name] for name in _quantised_weights(model)]
    assert all(each.dtype == np.int8 for each in weights)
    largest = max(int(np.abs(each.astype(int)).max()) for each in weights)
    assert largest <= 64 if dialect == "cpu-7bit" else largest in (127, 128)
    assert _smallest_cosine(trained, out) > 0.98


def test_fp8_weights_and_activations_are_e4m3_and_keep_descriptors(
    trained: Trained, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    _build(trained, cli, out, "fp8")
    model = onnx.load(str(out / "ground.onnx"))
    onnx.checker.check_model(model, full_check=True)
    check_fp16(model)
    types = {entry.name: entry.data_type for entry in model.graph.initializer}
    kinds = {types[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    kinds |= {types[name] for name in _quantised_weights(model)}
    assert kinds == {onnx.TensorProto.FLOAT8E4M3FN}
    assert (out / "ground.onnx").stat().st_size < 0.6 * (trained.onnx.path / "ground.onnx").stat().st_size
    assert _smallest_cosine(trained, out) > 0.95


def test_operators_belong_to_the_blocks_of_the_network(trained: Trained) -> None:
    all_operators = operators(onnx.load(str(trained.onnx.path / "ground.onnx")))
    assert "backbone.layers.0" in {operator.block for operator in all_operators}
    block = [operator for operator in all_operators if operator.block == "backbone.layers.4.0"]
    assert {operator.kind for operator in block} == {"Conv"}
    assert len(block) == 3


def test_a_small_product_is_not_quantised(trained: Trained) -> None:
    model = onnx.load(str(trained.onnx.path / "ground.onnx"))
    sizes = {entry.name: int(np.prod(entry.dims)) for entry in model.graph.initializer}
    all_operators = operators(model)
    names = {operator.name for operator in all_operators}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in sizes]
    assert products
    assert all((node.name in names) == (sizes[node.input[1]] >= 4096) for node in products)


def test_a_bias_of_many_steps_beside_half_precision_scales_is_kept() -> None:
    """ONNX Runtime's optimiser converts it to an integer that half precision cannot represent."""
    half, steps = np.float16, 100_000
    scales = {"of_x": half(0.04), "of_weights": half(0.001)}
    bias = half(steps * float(scales["of_x"]) * float(scales["of_weights"]))
    constants = {
        **{name: np.array(scale) for name, scale in scales.items()},
        "zero": np.int8(0),
        "weights": np.full((1, 1, 1, 1), 100, np.int8),
        "bias": np.array([bias]),
    }
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["half"], to=onnx.TensorProto.FLOAT16),
        onnx.helper.make_node("QuantizeLinear", ["half", "of_x", "zero"], ["steps"]),
        onnx.helper.make_node("DequantizeLinear", ["steps", "of_x", "zero"], ["read"]),
        onnx.helper.make_node("DequantizeLinear", ["weights", "of_weights", "zero"], ["kernel"]),
        onnx.helper.make_node("Conv", ["read", "kernel", "bias"], ["summed"]),
        onnx.helper.make_node("Relu", ["summed"], ["positive"]),
        onnx.helper.make_node("QuantizeLinear", ["positive", "of_x", "zero"], ["rounded"]),
        onnx.helper.make_node("DequantizeLinear", ["rounded", "of_x", "zero"], ["read_again"]),
        onnx.helper.make_node("Cast", ["read_again"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    shape = ("batch", 1, 1, 1)
    graph = onnx.helper.make_graph(
        nodes,
        "biased",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = open_session(model.SerializeToString())
    (y,) = session.run(None, {"x": np.ones((1, 1, 1, 1), np.float32)})
    assert y.item() == pytest.approx(1.0 * 0.1 + float(bias), abs=0.04)


def test_values_that_half_precision_does_not_hold_are_refused() -> None:
    check_fits({"features": (-65504.0, 65504.0)})
    with pytest.raises(GraphError, match=r"features reaches 70000 .* Build --precision fp32"):
        check_fits({"pixels": (-1.0, 1.0), "features": (-70_000.0, 1.0)})


def _build(trained: Trained, cli: Callable[..., Outcome], out: Path, precision: str, *more: object) -> None:
    data = trained.train_set.name
    command = ("build-engine", trained.onnx.path, "--precision", precision, "--calibration", data, "--images", 50)
    result = cli(*command, *more, "--out", out)
    assert result.code == 0, result.err


def _quantised_weights(model: onnx.ModelProto) -> list[str]:
    """The stored integers behind each quantised operator's weights."""
    producer = {name: node for node in model.graph.node for name in node.output}
    operated = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    sources = [producer.get(node.input[1]) for node in operated]
    return [node.input[0] for node in sources if node is not None and node.op_type == "DequantizeLinear"]


def _smallest_cosine(trained: Trained, out: Path) -> float:
    paths = trained.test_set.paths("ground")[:100]
    got = embed_files(open_bundle(out).embedder("ground"), paths)
    expected = embed_files(trained.onnx.embedder("ground"), paths)
    return float(np.sum(got * expected, axis=1).min())
