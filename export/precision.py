"""Precision as a property of the ONNX file: FP16 by casts, INT8 by Q/DQ nodes. No backend flag changes it."""

from typing import Any

from geodtr.calibration.ranges import Ranges
from geodtr.export.graph_checks import before_first, behind_last

INT8_OPS = ("Conv",)
"""What INT8 quantises: the convolutions, which are nearly all of the work. The layout extractor stays in floating
point: its arg-max must not read quantised values, and its products are small."""

_FP32_OPS = ("LayerNormalization", "Softmax")
"""Kept in float32 inside an FP16 graph: their sums overflow or lose what matters in half precision."""

_SMALLEST_RANGE = 1e-6


def to_fp16(graph: Any) -> Any:
    """A float32 `ModelProto` with half-precision weights and arithmetic, float32 islands where that would break.

    The islands are normalisation of pixels, LayerNorm, softmax, and the final L2 norm, whose sum of squares passes
    65,504 on real images. The given graph is left as it is.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    islands = [*before_first(graph, "Conv"), *behind_last(graph, "MatMul")]
    return convert_float_to_float16(
        _copy(graph),
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FP32_OPS],
        node_block_list=[node.name for node in islands],
    )


def to_int8(graph: Any, ranges: Ranges) -> Any:
    """A float32 `ModelProto` with its convolutions quantised by Q/DQ nodes, for CPUs.

    Activations are unsigned 8-bit per tensor by `ranges`, weights signed per output channel in 7 bits: a CPU without
    VNNI adds pairs of products in 16 bits, which 8-bit weights overflow. The given graph is left as it is.
    """
    import numpy as np
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    quantizer = QDQQuantizer(
        _with_shapes(graph),
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range={
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in _cut_by_relu(graph, ranges).items()
        },
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=list(INT8_OPS),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _cut_by_relu(graph: Any, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """The ranges, but without what a following ReLU cuts off: no integer step is spent on values that become zero."""
    readers: dict[str, list[str]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return {
        name: (0.0, max(high, _SMALLEST_RANGE)) if readers.get(name) == ["Relu"] else (low, high)
        for name, (low, high) in ranges.by_tensor.items()
    }


def _copy(graph: Any) -> Any:
    copied = type(graph)()
    copied.CopyFrom(graph)
    return copied


def _with_shapes(graph: Any) -> Any:
    """A copy with inferred shapes, marked as the quantiser expects of a file it has loaded itself."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph)
    onnx.helper.set_model_props(inferred, {"onnx.infer": "onnxruntime.quant"})
    return inferred
