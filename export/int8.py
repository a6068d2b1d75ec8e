"""INT8 as a property of the ONNX file: Q/DQ nodes around convolutions, as many as the calibration images allow.

Convolutions are nearly all of the work. The layout extractor stays in floating point: its arg-max must not read
quantised values, and its products are small.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.calibration.activations import Activations
from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Dialect
from geodtr.runtime.spec import INPUT, Descriptors, Images

KEEP_COSINE = 0.993
"""What descriptors of sample images must keep of the float32 ones: the promised 0.99, with some to spare."""

_SMALLEST_RANGE = 1e-6


@dataclass(frozen=True, slots=True)
class Int8Graph:
    """A quantised `ModelProto`, how many operators could be, and the names of those that had to stay in float32."""

    graph: Any
    operators: int
    kept_float: tuple[str, ...]


def to_int8(graph: Any, activations: Activations, dialect: Dialect, keep_cosine: float = KEEP_COSINE) -> Int8Graph:
    """Quantise the convolutions of a float32 `ModelProto`; the given graph is left as it is.

    Where quantising all of them turns the descriptor of a sample image so far that its cosine with the float32 one is
    below `keep_cosine`, the convolutions that do so are found by halving the list, and stay in float32.
    Raises ConfigError when none is left: a file without INT8 is not called INT8.
    """
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    expected = _describe(graph, activations.sample)
    corrections = _bias_corrections(graph, quantise(graph, activations, dialect, convolutions), activations)

    def quantised(chosen: Collection[str]) -> Any:
        return quantise(_corrected(graph, corrections, chosen), activations, dialect, chosen)

    def good(chosen: Collection[str]) -> bool:
        cosine = np.sum(expected * _describe(quantised(chosen), activations.sample), axis=1)
        return bool(cosine.min() >= keep_cosine)

    # Noise grows from layer to layer, so the layers next to the output are tried first.
    chosen = largest_good(convolutions[::-1], good)
    if not chosen:
        raise ConfigError(
            f"No convolution can be INT8 and keep a cosine of {keep_cosine} on the calibration images. Lower "
            f"--keep-cosine ({KEEP_COSINE} by default), or build --precision fp16."
        )
    kept_float = tuple(name for name in convolutions if name not in chosen)
    return Int8Graph(quantised(chosen), len(convolutions), kept_float)


def largest_good(items: Sequence[str], good: Callable[[Collection[str]], bool]) -> frozenset[str]:
    """A large subset of `items` for which `good` holds, found by adaptive halving.

    One call where all of them together are good; a few for each one that is not. Every set it grows by was tried.
    """
    accepted: frozenset[str] = frozenset()

    def add(part: Sequence[str]) -> None:
        nonlocal accepted
        if good(accepted | set(part)):
            accepted |= set(part)
        elif len(part) > 1:
            middle = len(part) // 2
            add(part[:middle])
            add(part[middle:])

    add(items)
    return accepted


def quantise(graph: Any, activations: Activations, dialect: Dialect, chosen: Collection[str]) -> Any:
    """A copy of `graph` with Q/DQ nodes around the `chosen` convolutions.

    Weights are signed per output channel, activations per tensor. For CPUs these are unsigned, and weights have 7 bits
    where products are added in pairs in 16 bits, which 8-bit weights overflow (no VNNI). TensorRT takes symmetric
    ranges and zero point 0 alone.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    inferred = onnx.shape_inference.infer_shapes(graph)
    # The quantiser asks for this mark of files that went through its own shape inference.
    onnx.helper.set_model_props(inferred, {"onnx.infer": "onnxruntime.quant"})
    quantizer = QDQQuantizer(
        inferred,
        per_channel=True,
        reduce_range=dialect == "cpu-7bit",
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if dialect == "tensorrt" else QuantType.QUInt8,
        tensors_range={
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in _cut_by_relu(graph, activations).items()
        },
        nodes_to_quantize=list(chosen),
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": dialect == "tensorrt"},
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _cut_by_relu(graph: Any, activations: Activations) -> dict[str, tuple[float, float]]:
    """The ranges, without what a following ReLU cuts off: no integer step is spent on values that become zero."""
    readers: dict[str, list[str]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return {
        name: (0.0, max(high, _SMALLEST_RANGE)) if readers.get(name) == ["Relu"] else (low, high)
        for name, (low, high) in activations.ranges.items()
    }


def _bias_corrections(graph: Any, quantised: Any, activations: Activations) -> dict[str, NDArray[np.float32]]:
    """For each convolution, what its bias must gain so that rounded weights give the same mean output.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
    4.2, with measured means: the expected error is (W - W_q) E[x], summed over the kernel.
    """
    from onnx import numpy_helper

    exact = {entry.name: entry for entry in graph.graph.initializer}
    stored = {entry.name: entry for entry in quantised.graph.initializer}
    producer = {name: node for node in quantised.graph.node for name in node.output}
    rounded = {node.name: producer[node.input[1]] for node in quantised.graph.node if node.op_type == "Conv"}
    corrections = {}
    for node in graph.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        integers, scale = (numpy_helper.to_array(stored[name]) for name in rounded[node.name].input[:2])
        weights = numpy_helper.to_array(exact[node.input[1]])
        error = weights - integers.astype(np.float32) * scale.reshape(-1, 1, 1, 1)
        corrections[node.name] = (error.sum(axis=(2, 3)) @ activations.means[node.input[0]]).astype(np.float32)
    return corrections


def _corrected(graph: Any, corrections: dict[str, NDArray[np.float32]], chosen: Collection[str]) -> Any:
    """A copy of `graph` with the corrections of the `chosen` convolutions added to their biases."""
    from onnx import numpy_helper

    copied = type(graph)()
    copied.CopyFrom(graph)
    stored = {entry.name: entry for entry in copied.graph.initializer}
    for node in copied.graph.node:
        if node.name in chosen and node.name in corrections:
            bias = stored[node.input[2]]
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + corrections[node.name], bias.name))
    return copied


def _describe(graph: Any, images: Images) -> Descriptors:
    (descriptors,) = open_session(graph.SerializeToString()).run(None, {INPUT: images})
    return np.asarray(descriptors, np.float32)
