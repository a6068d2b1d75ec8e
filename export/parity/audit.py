"""What precision each operator of a typed graph really has, and whether that is what its manifest promises.

Read off the file: types of tensors and Q/DQ nodes. A CPU computes half precision in float32 inside, and a quantised
arg-max may cost nothing on few images: cosines would not tell.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from geodtr.calibration.operators import operators
from geodtr.export.graph.checks import check_fp16, check_quantised
from geodtr.export.graph.structure import GraphError, tensor_types
from geodtr.export.parity.result import BranchAudit
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.installation import install_hint
from geodtr.runtime.manifest import Manifest
from geodtr.runtime.names import Branch

_TOLD = ("Conv", "MatMul", "Gemm", "LayerNormalization", "Softmax", "ReduceL2", "ArgMax")
_WEIGHTED = ("Conv", "MatMul", "Gemm")


def audit(bundle: Bundle, branch: Branch) -> BranchAudit:
    """Look into one branch's typed graph. Without the package onnx the graph cannot be read, and the audit says so."""
    entry = bundle.manifest.engine(branch)
    layers = {} if entry.compiled is None else dict(entry.compiled.layers)
    if find_spec("onnx") is None:
        unread = f"onnx is not installed: {install_hint('export')}"
        return BranchAudit(branch, operators={}, layers=layers, faults=(), unread=unread)
    import onnx

    graph = onnx.load(str(bundle.path / entry.file))
    found = precisions(graph)
    counted = {kind: Counter[str]() for kind in _TOLD}
    for node in graph.graph.node:
        if node.op_type in counted:
            counted[node.op_type][found[node.output[0]]] += 1
    return BranchAudit(
        branch,
        operators={kind: dict(counts) for kind, counts in counted.items() if counts},
        layers=layers,
        faults=tuple(_faults(graph, found, bundle.manifest, branch)),
    )


def precisions(graph: Any) -> dict[str, str]:
    """What each node of a `ModelProto` computes in (fp32, fp16, int8, fp8; other types by ONNX's name), by its output.

    A weighted operator is int8 or fp8 where both what it reads and its weights come out of a DequantizeLinear; any
    other node has the type of what it reads.
    """
    import onnx

    names: dict[int, str] = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}
    names |= {onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8", onnx.TensorProto.FLOAT8E4M3FN: "fp8"}
    types = tensor_types(graph)
    producer = {name: node for node in graph.graph.node for name in node.output}

    def told(tensor: str) -> str:
        kind = types.get(tensor, onnx.TensorProto.UNDEFINED)
        return names.get(kind) or str(onnx.TensorProto.DataType.Name(kind)).lower()

    def of(node: Any) -> str:
        if node.op_type in _WEIGHTED:
            sources = [producer[name] for name in node.input[:2] if name in producer]
            if [source.op_type for source in sources] == ["DequantizeLinear"] * 2:
                return told(sources[0].input[2])
        return told(node.input[0]) if node.input else told(node.output[0])

    return {node.output[0]: of(node) for node in graph.graph.node}


def _faults(graph: Any, found: dict[str, str], manifest: Manifest, branch: Branch) -> Iterator[str]:
    """What breaks the promises of the manifest's precision, in words."""
    weighted = {node.name: found[node.output[0]] for node in graph.graph.node if node.op_type in _WEIGHTED}
    quantised = {name for name, precision in weighted.items() if precision in ("int8", "fp8")}
    yield from _raised(lambda: check_quantised(graph, quantised))
    if manifest.precision in ("fp32", "fp16"):
        count = sum(node.op_type == "QuantizeLinear" for node in graph.graph.node)
        if count:
            yield f"an {manifest.precision} graph quantises {count} tensors"
    if manifest.precision == "fp32":
        other = sorted({found[node.output[0]] for node in graph.graph.node if node.op_type in _TOLD} - {"fp32"})
        if other:
            yield f"an fp32 graph computes in {', '.join(other)}"
    made = manifest.quantisation
    if manifest.precision == "fp16" or (made is not None and made.rest == "fp16"):
        yield from _raised(lambda: check_fp16(graph))
    if manifest.precision not in ("fp32", "fp16"):
        named = set() if made is None else set(made.kept_float)
        kept = {f"{branch}/{operator.name}" for operator in operators(graph)}
        silent, wrong = sorted(kept - named), sorted(name for name in named - kept if name.startswith(f"{branch}/"))
        if silent:
            yield f"not quantised, and the manifest does not say so: {', '.join(silent)}"
        if wrong:
            yield f"not quantised by the manifest, and quantised: {', '.join(wrong)}"
    yield from _wrong_scales(graph)


def _raised(check: Callable[[], None]) -> Iterator[str]:
    try:
        check()
    except GraphError as error:
        yield str(error)


def _wrong_scales(graph: Any) -> Iterator[str]:
    """Values that are quantised by one scale and read back by another."""
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
