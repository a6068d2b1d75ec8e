"""What must hold of an exported ONNX file before it counts as written; a failure is a bug, not a user's mistake."""

from pathlib import Path
from typing import Any

import numpy as np

from geodtr.export.onnx_graph import INPUT, OPSET
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder
from geodtr.runtime.spec import Embedder

BATCHES = (1, 2, 7)
TOLERANCE = 1e-5
_PASS_THROUGH = frozenset({"Relu", "Reshape", "Transpose", "Identity", "Cast", "Flatten", "Squeeze", "Unsqueeze"})


class GraphError(RuntimeError):
    """An exported graph is not what this project promises of it."""


def check_export(path: Path, reference: Embedder) -> None:
    """Run the float32 file `path` at batch 1, 2 and 7 and compare it with `reference`, to 1e-5 per element.

    Raises GraphError when it differs, or its opset is newer than TensorRT reads.
    """
    import onnx

    opset = max(entry.version for entry in onnx.load(str(path)).opset_import if entry.domain in ("", "ai.onnx"))
    if opset > OPSET:
        raise GraphError(f"{path} has opset {opset}, newer than {OPSET}")
    exported = OnnxRuntimeEmbedder(path, reference.spec)
    how = reference.spec.preprocessing
    generator = np.random.default_rng(0)
    for batch in BATCHES:
        images = generator.integers(0, 256, (batch, how.height, how.width, 3), np.uint8)
        worst = float(np.abs(exported.embed(images) - reference.embed(images)).max())
        if not worst <= TOLERANCE:
            raise GraphError(f"{path} differs from PyTorch by {worst:.1e} at batch {batch}, allowed is {TOLERANCE:.0e}")


def check_fp16(graph: Any) -> None:
    """Raise GraphError unless weights are half precision while the L2 norm, LayerNorm and softmax stay float32.

    Asserted on tensor types: CPU kernels compute FP16 in float32 inside and would hide an overflow.
    """
    import onnx

    types = _tensor_types(graph)
    half = onnx.TensorProto.FLOAT16
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    if not all(types.get(node.input[1]) == half for node in convolutions):
        raise GraphError("an FP16 graph holds a convolution whose weights are not FP16")
    islands = [node for node in graph.graph.node if node.op_type in ("LayerNormalization", "Softmax", "ReduceL2")]
    for node in islands:
        if types.get(node.input[0]) == half or types.get(node.output[0]) == half:
            raise GraphError(f"an FP16 graph computes {node.op_type} {node.name} in half precision")


def check_int8(graph: Any) -> None:
    """Raise GraphError unless every convolution is quantised and no quantised tensor reaches the saliency's arg-max."""
    producer = {name: node for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        if node.op_type == "Conv" and producer[node.input[0]].op_type != "DequantizeLinear":
            raise GraphError(f"an INT8 graph holds the float convolution {node.name}")
        if node.op_type in ("ArgMax", "ReduceMax"):
            source = producer.get(node.input[0])
            while source is not None and source.op_type in _PASS_THROUGH:
                source = producer.get(source.input[0])
            if source is not None and source.op_type == "DequantizeLinear":
                raise GraphError(f"{node.op_type} {node.name} reads a quantised tensor")


def before_first(graph: Any, op_type: str) -> list[Any]:
    """The nodes that lead from the graph's input to its first `op_type`, that one left out."""
    nodes = list(graph.graph.node)
    first = next(index for index, node in enumerate(nodes) if node.op_type == op_type)
    reached = {INPUT}
    found = []
    for node in nodes[:first]:
        if reached & set(node.input):
            found.append(node)
            reached.update(node.output)
    return found


def behind_last(graph: Any, op_type: str) -> list[Any]:
    """The nodes that follow the graph's last `op_type`, up to its output."""
    nodes = list(graph.graph.node)
    last = max(index for index, node in enumerate(nodes) if node.op_type == op_type)
    reached = set(nodes[last].output)
    found = []
    for node in nodes[last + 1 :]:
        if reached & set(node.input):
            found.append(node)
            reached.update(node.output)
    return found


def _tensor_types(graph: Any) -> dict[str, int]:
    """Element type of every tensor, as far as the graph and shape inference tell."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph).graph
    types = {entry.name: entry.data_type for entry in inferred.initializer}
    for entry in (*inferred.input, *inferred.output, *inferred.value_info):
        types[entry.name] = entry.type.tensor_type.elem_type
    return types
