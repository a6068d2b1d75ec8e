"""What must hold of an ONNX file before it counts as written: it computes what PyTorch does, in the types it claims."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from geodtr.calibration.operators import WEIGHTED
from geodtr.export.cosines import cosines, counted, finite_rows
from geodtr.export.graph.structure import QUANTISERS, SUMS, GraphError, behind_last, tensor_types
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.spec import INPUT, OUTPUT, BranchSpec, Embedder, noise

OPSET = 20
"""The newest opset on TensorRT's list of supported operators."""
BATCHES = (1, 2, 7)
SMALLEST_COSINE, TYPICAL_DIFFERENCE = 0.99999, 1e-5
_PASS_THROUGH = frozenset(
    {"Relu", "Reshape", "Transpose", "Identity", "Cast", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Pad", "Clip"}
    | {"Slice", "Split", "Gather", "Concat", "Expand"}
)
"""Operators that give some of the values they read, unchanged or clipped."""


def check_export(path: Path, reference: Embedder) -> None:
    """Run the float32 file `path` on seven images, in batches of 1, 2 and 7, and compare each row with `reference`.

    Adding in another order costs a few 1e-7 per element, but can flip an arg-max between two equal channels, which
    moves some elements further: hence the median. Raises GraphError when they differ, when rows of `reference` are zero
    or not finite, or when the opset is newer than TensorRT reads.
    """
    import onnx

    graph = onnx.load(str(path))
    opset = max(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > OPSET:
        raise GraphError(f"{path} has opset {opset}, newer than {OPSET}")
    exported = OnnxRuntimeEmbedder(open_session(path), reference.spec, path)
    images = noise(reference.spec, max(BATCHES))
    expected = reference.embed(images)
    empty = len(images) - int((finite_rows(expected) & expected.any(axis=1)).sum())
    if empty:
        raise GraphError(
            f"The checkpoint's {reference.spec.branch} branch does not describe every image: in PyTorch, {empty} of "
            f"{len(images)} descriptors of noise are zeros or not finite. Nothing was written. Train it again, with "
            "another seed or a lower learning rate."
        )
    for batch in BATCHES:
        parts = [exported.embed(images[first : first + batch]) for first in range(0, len(images), batch)]
        got = np.concatenate(parts)
        typical = float(np.median(np.abs(got - expected)))
        cosine = counted(cosines(expected, got), chooses=reference.spec.chooses).min()
        if not (typical <= TYPICAL_DIFFERENCE and cosine >= SMALLEST_COSINE):
            raise GraphError(
                f"The exported {reference.spec.branch} branch differs from PyTorch by {typical:.1e} (cosine "
                f"{cosine:.7f}) at batch {batch}; allowed are {TYPICAL_DIFFERENCE:.0e} and {SMALLEST_COSINE}. "
                "Nothing was written."
            )


def check_ours(path: Path, spec: BranchSpec) -> None:
    """Raise GraphError unless the float32 file `path` is a graph as `export` writes them: raw pixels in, descriptors
    out, and the convolutions and products in between that typing looks for.
    """
    import onnx

    graph = onnx.load(str(path)).graph
    how = spec.preprocessing
    takes = [(each.name, each.type.tensor_type.elem_type, *_sides(each)[1:]) for each in graph.input]
    gives = [(each.name, each.type.tensor_type.elem_type, *_sides(each)[1:]) for each in graph.output]
    kinds = {node.op_type for node in graph.node}
    if (
        takes != [(INPUT, onnx.TensorProto.UINT8, *how.shape)]
        or gives != [(OUTPUT, onnx.TensorProto.FLOAT, spec.descriptor_size)]
        or "Conv" not in kinds
    ):
        height, width, _ = how.shape
        raise GraphError(
            f"{path} is not a graph that this project exported: those take {INPUT} uint8 [B, "
            f"{height}, {width}, 3] and give {OUTPUT} float32 [B, {spec.descriptor_size}]. Export the checkpoint: "
            "geodtr-export export CKPT --out BUNDLE"
        )


def _sides(value: Any) -> list[int]:
    return [side.dim_value for side in value.type.tensor_type.shape.dim]


def check_fp16(graph: Any) -> None:
    """Raise GraphError unless weights are half precision while L2 norm, LayerNorm, GroupNorm and softmax stay float32.

    Weights in 8 bits count by what they are dequantised to. Asserted on tensor types: CPU kernels compute FP16 in
    float32 inside and would hide an overflow.
    """
    import onnx

    types = tensor_types(graph)
    half = onnx.TensorProto.FLOAT16
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    if not all(types.get(node.input[1]) == half for node in convolutions):
        raise GraphError("an FP16 graph holds a convolution whose weights are not FP16")
    islands = [node for node in graph.graph.node if node.op_type in SUMS]
    for node in islands:
        if {types.get(node.input[0]), types.get(node.output[0])} != {onnx.TensorProto.FLOAT}:
            raise GraphError(f"an FP16 graph computes {node.op_type} {node.name} in half precision")
    for node in behind_last(graph):
        if types.get(node.output[0]) != onnx.TensorProto.FLOAT:
            raise GraphError(f"an FP16 graph rounds {node.output[0]}, behind the last product, to half precision")


def check_quantised(graph: Any, quantised: Collection[str]) -> None:
    """Raise GraphError unless the operators whose weights and inputs are quantised are the `quantised` ones, and no
    quantised tensor reaches the saliency's arg-max.
    """
    producer = {name: node for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        if node.op_type in WEIGHTED:
            sources = [producer.get(name) for name in node.input[:2]]
            dequantised = [source is not None and source.op_type == "DequantizeLinear" for source in sources]
            if all(dequantised) != (node.name in quantised):
                raise GraphError(f"a quantised graph holds {node.op_type} {node.name} in the wrong precision")
        if node.op_type == "ArgMax":
            source = producer.get(node.input[0])
            while source is not None and source.op_type in _PASS_THROUGH:
                source = producer.get(source.input[0])
            if source is not None and source.op_type == "DequantizeLinear":
                raise GraphError(f"{node.op_type} {node.name} reads a quantised tensor")


def check_for_tensorrt(graph: Any) -> None:
    """Raise GraphError unless TensorRT's parser takes every Q/DQ node: signed, of 8 bits, zero point 0.

    Its importer refuses to dequantise what is no activation type: a bias in 32-bit integers, as CPUs have it.
    """
    import onnx
    from onnx import numpy_helper

    stored = {entry.name: entry for entry in graph.graph.initializer}
    allowed = {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT8E4M3FN}
    for node in graph.graph.node:
        if node.op_type in QUANTISERS:
            zero = stored.get(node.input[2]) if len(node.input) > 2 else None
            if zero is None or zero.data_type not in allowed or numpy_helper.to_array(zero).astype(np.float32).any():
                raise GraphError(
                    f"{node.op_type} {node.name} is none that TensorRT takes: signed 8-bit values, zero point 0"
                )
