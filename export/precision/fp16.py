"""FP16 as a property of the ONNX file: casts, half-precision weights, and float32 islands where FP16 would break."""

from collections.abc import Mapping
from typing import Any

from geodtr.calibration.activations import Range
from geodtr.export.graph.structure import QUANTISERS, SUMS, GraphError, before_first, behind_last, selection, transport

LARGEST = 65504.0


def to_fp16(graph: Any) -> Any:
    """A `ModelProto` with half-precision weights and arithmetic for float32 ones; the given graph is left as it is.

    Float32 stay the normalisation of pixels, LayerNorm, GroupNorm, softmax, transport plans, maps that choose patches,
    and L2 norms: the final one's sum of squares passes 65,504 on real images. Integers stay what they are: of Q/DQ
    nodes the scales become half, and with them, from opset 19 on, what these nodes read and give (ONNX,
    DequantizeLinear: the output has the type of the scale).
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    islands = [*before_first(graph, "Conv"), *behind_last(graph), *transport(graph), *selection(graph)]
    # The one that quantises pixels is no part of their normalisation: between it and the convolution nothing may stand.
    islands = [node for node in islands if node.op_type not in QUANTISERS]
    converted = convert_float_to_float16(
        onnx.shape_inference.infer_shapes(graph),  # a copy; tensors of unknown type would get no casts
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *SUMS],
        node_block_list=[node.name for node in islands],
    )
    return _join_islands(converted)


def check_fits(ranges: Mapping[str, Range]) -> None:
    """Raise GraphError when a tensor was seen to take values that half precision does not hold: CPU kernels compute in
    float32 inside, and would not show it.
    """
    for name, (low, high) in ranges.items():
        if max(-low, high) > LARGEST:
            raise GraphError(
                f"the tensor {name} reaches {max(-low, high):.0f} on the calibration images, and half precision, which "
                f"TensorRT computes in what is not quantised, ends at {LARGEST:.0f}. Build --precision fp32."
            )


def _join_islands(graph: Any) -> Any:
    """Let float32 nodes that follow each other exchange float32: the converter rounds to FP16 between any two of them.

    That rounding would make the norm overflow, which the island prevents. The nodes are also sorted topologically.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    model = onnx_ir.from_proto(graph)
    for node in model.graph:
        rounding = node.inputs[0].producer() if _casts_to(node, onnx_ir.DataType.FLOAT) else None
        if rounding is not None and _casts_to(rounding, onnx_ir.DataType.FLOAT16):
            node.replace_input_with(0, rounding.inputs[0])
    RemoveUnusedNodesPass()(model)
    model.graph.sort()
    return onnx_ir.to_proto(model)


def _casts_to(node: Any, dtype: int) -> bool:
    return bool(node.op_type == "Cast" and node.attributes["to"].as_int() == dtype)
