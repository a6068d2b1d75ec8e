"""What a build changes in the 8-bit graphs that ONNX Runtime optimised: the time they take, and no value."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tiny_bundle import write_bundle

from geodtr import OnnxRuntimeOptions, open_bundle
from geodtr.export.backends.registry import make_builder
from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.progress import untracked
from geodtr.runtime.spec import INPUT

INPUTS, OUTPUTS = 24, 16
VECTOR, NUMBER = (OUTPUTS,), (1,)


@pytest.mark.parametrize(
    ("bias", "swapped", "with_gelu", "read_twice", "moved"),
    [
        (VECTOR, False, False, False, True),
        (VECTOR, True, False, False, True),
        (VECTOR, False, True, False, True),
        (VECTOR, True, True, False, True),
        (VECTOR, False, False, True, False),
        (VECTOR, False, True, True, False),
        (NUMBER, False, False, False, False),
        ((), False, False, False, False),
        ((3, OUTPUTS), False, False, False, False),
    ],
)
def test_a_bias_is_part_of_its_product_unless_something_else_reads_the_product(
    tmp_path: Path, bias: tuple[int, ...], swapped: bool, with_gelu: bool, read_twice: bool, moved: bool
) -> None:
    model = _product(bias, swapped=swapped, with_gelu=with_gelu, read_twice=read_twice)
    draw = np.random.default_rng(1)
    nodes = _built(model, tmp_path, {"x": draw.normal(0, 1, (2, 3, INPUTS)).astype(np.float32)}).graph.node
    (product,) = (node for node in nodes if node.op_type == "MatMulIntegerToFloat")
    assert (len(product.input) == 7) == moved
    assert {"Add", "BiasGelu"}.isdisjoint(node.op_type for node in nodes) == moved


@pytest.mark.parametrize("width", [3, 10])
def test_mean_and_std_are_repeated_along_the_columns_of_pixels_whose_channels_stay_last(
    tmp_path: Path, width: int
) -> None:
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (2, 6, width, 3)).astype(np.uint8)
    graph = _built(_convolution(width), tmp_path, {INPUT: images}).graph
    shapes = {entry.name: list(entry.dims) for entry in graph.initializer}
    read = {node.op_type: shapes[node.input[1]] for node in graph.node if node.op_type in ("Sub", "Div")}
    assert read == {"Sub": [width, 3], "Div": [width, 3]}


def _built(model: onnx.ModelProto, folder: Path, values: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """The graph of an int8 engine of `model`, which gives what `model` gives of `values`."""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(folder / "graph.onnx"))
    spec = open_bundle(write_bundle(folder / "bundle")).manifest.ground.spec
    compiled = make_builder(OnnxRuntimeOptions()).compile(folder / "graph.onnx", spec, "int8", folder, track=untracked)
    assert compiled is not None
    expected = open_session(folder / "graph.onnx", optimisation="none").run(None, values)
    computed = open_session(compiled.file, optimisation="none").run(None, values)
    for one, other in zip(computed, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    return onnx.load(str(compiled.file))


def _product(bias: tuple[int, ...], *, swapped: bool, with_gelu: bool, read_twice: bool) -> onnx.ModelProto:
    """8-bit inputs [B, 3, INPUTS] times 7-bit weights, exact on every processor, plus a bias."""
    draw = np.random.default_rng(0)
    stored = {
        "scale": np.float32(0.05),
        "zero": np.uint8(128),
        "weights": draw.integers(-63, 64, (INPUTS, OUTPUTS)).astype(np.int8),
        "steps": draw.uniform(0.01, 0.02, OUTPUTS).astype(np.float32),
        "zeros": np.zeros(OUTPUTS, np.int8),
        "bias": draw.normal(0, 1, bias).astype(np.float32),
    }
    outputs = ["y", "product"] if read_twice else ["y"]

    def nodes() -> Iterator[onnx.NodeProto]:
        yield helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["levels"])
        yield helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["rounded"])
        yield helper.make_node("DequantizeLinear", ["weights", "steps", "zeros"], ["w"], axis=1)
        yield helper.make_node("MatMul", ["rounded", "w"], ["product"])
        last = "sum" if with_gelu else "y"
        yield helper.make_node("Add", ["bias", "product"] if swapped else ["product", "bias"], [last])
        if with_gelu:
            yield helper.make_node("Gelu", ["sum"], ["y"])

    return _model(
        list(nodes()),
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, INPUTS]),
        {name: ["batch", 3, OUTPUTS] for name in outputs},
        stored,
    )


def _convolution(width: int) -> onnx.ModelProto:
    """Images [B, 6, W, 3], minus mean, over std, through an 8-bit convolution: [B, 6, W, 8], channels last."""
    draw = np.random.default_rng(0)
    stored = {
        "mean": np.array([100, 120, 140], np.float32).reshape(3, 1, 1),
        "std": np.array([50, 60, 70], np.float32).reshape(3, 1, 1),
        "scale": np.float32(0.02),
        "zero": np.uint8(120),
        "weights": draw.integers(-63, 64, (8, 3, 3, 3)).astype(np.int8),
        "steps": draw.uniform(0.01, 0.02, 8).astype(np.float32),
        "zeros": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["first", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["scaled"]),
        helper.make_node("QuantizeLinear", ["scaled", "scale", "zero"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["weights", "steps", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["rounded", "w"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["features", "scale", "zero"], ["steps_of_features"]),
        helper.make_node("DequantizeLinear", ["steps_of_features", "scale", "zero"], ["read"]),
        helper.make_node("Transpose", ["read"], ["y"], perm=[0, 2, 3, 1]),
    ]
    images = helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["batch", 6, width, 3])
    return _model(nodes, images, {"y": ["batch", 6, width, 8]}, stored)


def _model(
    nodes: list[onnx.NodeProto],
    read: onnx.ValueInfoProto,
    outputs: Mapping[str, list[int | str]],
    stored: Mapping[str, Any],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [read],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
