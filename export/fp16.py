"""FP16 as a property of the ONNX file: casts, half-precision weights, and float32 islands where FP16 would break."""

from typing import Any

from geodtr.export.graph_checks import before_first, behind_last

_FP32_OPS = ("LayerNormalization", "Softmax")


def to_fp16(graph: Any) -> Any:
    """A float32 `ModelProto` with half-precision weights and arithmetic; the given graph is left as it is.

    Float32 stay the normalisation of pixels, LayerNorm, softmax, and the final L2 norm, whose sum of squares passes
    65,504 on real images.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    copied = type(graph)()
    copied.CopyFrom(graph)
    islands = [*before_first(graph, "Conv"), *behind_last(graph, "MatMul")]
    converted = convert_float_to_float16(
        copied,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FP32_OPS],
        node_block_list=[node.name for node in islands],
    )
    return _join_islands(converted)


def _join_islands(graph: Any) -> Any:
    """Let float32 nodes that follow each other exchange float32: the converter rounds to FP16 between any two of them.

    That rounding would spoil the very norm that the island protects. Nodes are put in topological order, too.
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
