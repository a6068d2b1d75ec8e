"""Whether TensorRT gave a graph's operators the precision that the graph has: read back from the engine, by name.

A strongly typed network leaves TensorRT no choice of types, but it does leave it how Q/DQ nodes are fused: a
convolution that does not take the quantised tensor itself computes in float.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodtr.calibration.operators import WEIGHTED
from geodtr.export.graph.structure import tensor_types
from geodtr.runtime.engines.tensorrt.versions import UNKNOWN, layer_precisions, operator_precisions, width
from geodtr.runtime.errors import BuildError
from geodtr.runtime.names import Precision

LEAST = 0.8
"""Share of the operators typed in a precision that must be computed in it, or in a narrower one. Not all: TensorRT may
find no kernel for a small one.
"""
_LOW: dict[Precision, str] = {"fp16": "fp16", "int8": "int8", "fp8": "fp8", "mixed": "int8"}
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Audit:
    """The layers of an engine by precision, and the graph's operators that are computed in a wider one than theirs."""

    layers: dict[str, int]
    wider: tuple[str, ...]


def audit(information: str, graph: Path, precision: Precision, engine: str) -> Audit:
    """Compare the inspector's information on `engine` (its name in messages) with the weighted operators of the ONNX
    file `graph` that are typed in `precision`.

    Raises BuildError when fewer than LEAST of them are computed in their type; an operator that no layer names counts
    as not. If the inspector names no operator at all, layers are counted instead.
    """
    import onnx

    layers, got = layer_precisions(information), operator_precisions(information)
    if precision not in _LOW:
        return Audit(layers, ())
    low = _LOW[precision]
    typed = _typed_in(onnx.load(str(graph)), low)
    named = any(name in got for name in typed)
    wider = [name for name in typed if named and width(got.get(name, UNKNOWN)) > width(low)]
    right = len(typed) - len(wider) if named else min(len(typed), layers.get(low, 0))
    if not right >= LEAST * len(typed) > 0:
        counts = ", ".join(f"{count} {name}" for name, count in layers.items()) or "none"
        raise BuildError(
            f"{precision} was asked for, and {engine} computes {right} of {len(typed)} operators in {low} that the "
            f"graph has in it; at least {LEAST:.0%} must be. {_named(wider, got)}Its layers: {counts}. Nothing was "
            f"written. Build in fp32, or on a GPU that has {low}."
        )
    return Audit(layers, tuple(wider))


def _typed_in(graph: Any, low: str) -> list[str]:
    """The names of a graph's convolutions and products of two tensors that are of this type, or dequantised from it."""
    from onnx import TensorProto

    wanted = {"fp16": TensorProto.FLOAT16, "int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}[low]
    types = tensor_types(graph)
    dequantised = {node.output[0]: node.input[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in graph.graph.node
        if node.op_type in WEIGHTED and all(types.get(dequantised.get(name, name)) == wanted for name in node.input[:2])
    ]


def _named(wider: list[str], got: dict[str, Any]) -> str:
    """The operators that are computed in a wider type, in words."""
    if not wider:
        return ""
    shown = [f"{name} ({got.get(name, 'in no layer')})" for name in wider[:_MOST_NAMED]]
    more = len(wider) - len(shown)
    return f"The others: {', '.join(shown)}{f' and {more} more' if more else ''}. "
