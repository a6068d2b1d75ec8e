"""The real precision of each operator of a typed graph, compared with its manifest.

It is read from the file: types of tensors and Q/DQ nodes. Cosines would not show it: a CPU computes half precision in
float32 inside, and a quantised arg-max may cost nothing on few images.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from geodtr.calibration.operators import WEIGHTED, operators
from geodtr.export.graph.checks import check_fp16, check_quantised
from geodtr.export.graph.structure import GraphError, tensor_types
from geodtr.export.parity.measurements import BranchAudit
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.installation import install_hint
from geodtr.runtime.manifest import Manifest
from geodtr.runtime.names import Branch

_COUNTED = (*WEIGHTED, "LayerNormalization", "Softmax", "ReduceL2", "ArgMax")


def audit(bundle: Bundle, branch: Branch) -> BranchAudit:
    """Inspect one branch's typed graph. Without the package onnx the graph is unread, which the audit reports."""
    entry = bundle.manifest.engine(branch)
    layers = {} if entry.compiled is None else dict(entry.compiled.layers)
    if find_spec("onnx") is None:
        unread = f"onnx is not installed: {install_hint('export')}"
        return BranchAudit(branch, operators={}, layers=layers, faults=(), unread=unread)
    import onnx

    graph = onnx.load(str(bundle.path / entry.file))
    by_output = precisions(graph)
    counted = {kind: Counter[str]() for kind in _COUNTED}
    for node in graph.graph.node:
        if node.op_type in counted:
            counted[node.op_type][by_output[node.output[0]]] += 1
    return BranchAudit(
        branch,
        operators={kind: dict(counts) for kind, counts in counted.items() if counts},
        layers=layers,
        faults=tuple(_faults(graph, by_output, bundle.manifest, branch)),
    )


def precisions(graph: Any) -> dict[str, str]:
    """The precision of each node of a `ModelProto` (fp32, fp16, int8, fp8; other types by ONNX's name), by its output.

    A weighted operator is int8 or fp8 if both its input and its weights come from a DequantizeLinear; any other node
    has the type of its input.
    """
    import onnx

    names: dict[int, str] = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}
    names |= {onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8", onnx.TensorProto.FLOAT8E4M3FN: "fp8"}
    types = tensor_types(graph)
    producer = {name: node for node in graph.graph.node for name in node.output}

    def type_name(tensor: str) -> str:
        kind = types.get(tensor, onnx.TensorProto.UNDEFINED)
        return names.get(kind) or str(onnx.TensorProto.DataType.Name(kind)).lower()

    def of(node: Any) -> str:
        if node.op_type in WEIGHTED:
            sources = [producer[name] for name in node.input[:2] if name in producer]
            if [source.op_type for source in sources] == ["DequantizeLinear"] * 2:
                return type_name(sources[0].input[2])
        return type_name(node.input[0]) if node.input else type_name(node.output[0])

    return {node.output[0]: of(node) for node in graph.graph.node}


def _faults(graph: Any, by_output: dict[str, str], manifest: Manifest, branch: Branch) -> Iterator[str]:
    """The contradictions to the manifest's precision, in words."""
    weighted = {node.name: by_output[node.output[0]] for node in graph.graph.node if node.op_type in WEIGHTED}
    quantised = {name for name, precision in weighted.items() if precision in ("int8", "fp8")}
    yield from _raised(lambda: check_quantised(graph, quantised))
    if manifest.precision in ("fp32", "fp16"):
        count = sum(node.op_type == "QuantizeLinear" for node in graph.graph.node)
        if count:
            yield f"an {manifest.precision} graph quantises {count} tensors"
    if manifest.precision == "fp32":
        other = sorted({by_output[node.output[0]] for node in graph.graph.node if node.op_type in _COUNTED} - {"fp32"})
        if other:
            yield f"an fp32 graph computes in {', '.join(other)}"
    entry = manifest.quantisation
    if manifest.precision == "fp16" or (entry is not None and entry.rest == "fp16"):
        yield from _raised(lambda: check_fp16(graph))
    if manifest.precision not in ("fp32", "fp16"):
        named = set() if entry is None else set(entry.kept_float)
        kept = {f"{branch}/{operator.name}" for operator in operators(graph)}
        silent, wrong = sorted(kept - named), sorted(name for name in named - kept if name.startswith(f"{branch}/"))
        if silent:
            yield f"not quantised, and missing from the manifest's kept_float: {', '.join(silent)}"
        if wrong:
            yield f"not quantised by the manifest, and quantised: {', '.join(wrong)}"
    yield from _wrong_scales(graph)


def _raised(check: Callable[[], None]) -> Iterator[str]:
    try:
        check()
    except GraphError as error:
        yield str(error)


def _wrong_scales(graph: Any) -> Iterator[str]:
    """Values that are quantised with one scale and dequantised with another."""
    from onnx import numpy_helper

    stored = {entry.name: entry for entry in graph.graph.initializer}
    quantised = {node.output[0]: node for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.graph.node:
        source = quantised.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is None:
            continue
        for there, back in zip(source.input[1:], node.input[1:], strict=False):
            if there == back or there not in stored or back not in stored:
                continue
            if not np.array_equal(numpy_helper.to_array(stored[there]), numpy_helper.to_array(stored[back])):
                yield f"{source.input[0]} is quantised by {there} and read back by {back}, which differ"
