"""The checks of every written graph detect the faults that they exist for."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import Trained
from onnx import TensorProto, helper, numpy_helper

from geodtr.calibration.operators import operators
from geodtr.export.build.compile import check_batch_invariance
from geodtr.export.graph.checks import check_export, check_fp16, check_quantised
from geodtr.export.graph.export import export_network
from geodtr.export.graph.structure import GraphError
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import BranchSpec, Descriptors, Images, Preprocessing
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders


def _graph(trained: Trained, precision: Precision) -> onnx.ModelProto:
    return onnx.load(str(trained.bundles[precision].path / "ground.onnx"))


def _insert_before(graph: onnx.ModelProto, node: onnx.NodeProto, added: list[onnx.NodeProto], output: str) -> None:
    """Let `node` read `output` of the `added` nodes instead of its first input."""
    node.input[0] = output
    position = list(graph.graph.node).index(node)
    for offset, new in enumerate(added):
        graph.graph.node.insert(position + offset, new)


def test_an_fp16_l2_norm_is_caught(trained: Trained) -> None:
    graph = _graph(trained, "fp16")
    check_fp16(graph)
    (norm,) = [node for node in graph.graph.node if node.op_type == "ReduceL2"]
    cast = helper.make_node("Cast", [norm.input[0]], ["half"], to=TensorProto.FLOAT16)
    after = norm.output[0]
    norm.output[0] = "half norm"
    back = helper.make_node("Cast", ["half norm"], [after], to=TensorProto.FLOAT)
    _insert_before(graph, norm, [cast], "half")
    graph.graph.node.append(back)
    with pytest.raises(GraphError, match="half precision"):
        check_fp16(_sorted(graph))


def test_float32_weights_called_fp16_are_caught(trained: Trained) -> None:
    with pytest.raises(GraphError, match="not FP16"):
        check_fp16(_graph(trained, "fp32"))


def test_a_float_convolution_in_an_int8_graph_is_caught(trained: Trained) -> None:
    graph = _graph(trained, "fp32")
    first = next(node.name for node in graph.graph.node if node.op_type == "Conv")
    with pytest.raises(GraphError, match="wrong precision"):
        check_quantised(graph, {first})


def test_a_quantised_arg_max_is_caught(trained: Trained) -> None:
    graph = _graph(trained, "int8")
    manifest = trained.bundles["int8"].manifest
    assert manifest.quantisation is not None
    kept = {name.removeprefix("ground/") for name in manifest.quantisation.kept_float if name.startswith("ground/")}
    quantised = {operator.name for operator in operators(_graph(trained, "fp32"))} - kept
    check_quantised(graph, quantised)
    (arg_max,) = [node for node in graph.graph.node if node.op_type == "ArgMax"]
    graph.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "step"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    quantise = helper.make_node("QuantizeLinear", [arg_max.input[0], "step", "zero"], ["q"])
    dequantise = helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["dq"])
    _insert_before(graph, arg_max, [quantise, dequantise], "dq")
    with pytest.raises(GraphError, match="reads a quantised tensor"):
        check_quantised(graph, quantised)


def test_an_export_that_computes_something_else_is_caught(trained: Trained) -> None:
    reference = embedders(load_checkpoint(trained.checkpoint).model).ground
    exported = trained.onnx.path / "ground.onnx"
    check_export(exported, reference)
    with pytest.raises(GraphError, match="differs from PyTorch"):
        check_export(exported, _Changed(reference, lambda rows: np.roll(rows, 1, axis=1)))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_descriptors_of_zeros_or_not_finite_are_named(trained: Trained, value: float) -> None:
    reference = embedders(load_checkpoint(trained.checkpoint).model).ground

    def without_two(rows: Descriptors) -> Descriptors:
        return np.concatenate([np.full_like(rows[:2], value), rows[2:]])

    with pytest.raises(GraphError, match=r"ground branch does not describe every image.* 2 of 7 .*zeros or not finite"):
        check_export(trained.onnx.path / "ground.onnx", _Changed(reference, without_two))


def test_a_graph_that_reads_its_batch_size_is_caught() -> None:
    with pytest.raises(GraphError, match="reads its batch size"):
        export_network(_Expanding(), Preprocessing(height=4, width=4))


class _Expanding(torch.nn.Module):
    """Appends the same numbers to every row."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.float().mean(dim=(1, 2)), torch.ones(1, 5).expand(images.shape[0], -1)], dim=1)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda rows: np.roll(rows, 1, axis=0), "another row"),
        (lambda rows: 2 * rows, "unit length"),
        (lambda rows: rows * np.nan, "unit length"),
    ],
)
def test_rows_that_depend_on_their_batch_are_caught(trained: Trained, fault: Any, named: str) -> None:
    engine = trained.bundles["fp32"].embedder("ground")
    images = next(load_batches(trained.test_set.paths("ground")[:8], engine.spec.preprocessing, 8))
    check_batch_invariance(engine, "fp32", images)
    with pytest.raises(GraphError, match=named):
        check_batch_invariance(_Changed(engine, fault), "fp32", images)


class _Changed:
    """An embedder with a planted fault."""

    def __init__(self, inner: Any, fault: Any) -> None:
        self._inner, self._fault = inner, fault

    @property
    def spec(self) -> BranchSpec:
        spec: BranchSpec = self._inner.spec
        return spec

    def embed(self, images: Images) -> Descriptors:
        rows: Descriptors = self._fault(self._inner.embed(images))
        return rows


def _sorted(graph: onnx.ModelProto) -> Any:
    import onnx_ir

    model = onnx_ir.from_proto(graph)
    model.graph.sort()
    return onnx_ir.to_proto(model)
