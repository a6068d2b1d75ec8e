"""INT8 as a property of the ONNX file: Q/DQ nodes around convolutions and large products.

These stay in floating point: the arg-max, which must not read quantised values, products of two activations, and
operators that the caller leaves out.
"""

from collections.abc import Collection
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.calibration.activations import Activations, Range
from geodtr.calibration.operators import WEIGHTED, Operator, operators
from geodtr.export.precision.fp16 import to_fp16
from geodtr.runtime.engines.onnxruntime import Optimisation, optimisation_of
from geodtr.runtime.names import Dialect, Precision

_SMALLEST_RANGE = 1e-6
_FOR_TENSORRT = {
    "ActivationSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
}
# ONNX Runtime has no 8-bit convolution that gives float32. What other operators give is read in float32.
_FOR_CPUS = {"OpTypesToExcludeOutputQuantization": [kind for kind in WEIGHTED if kind != "Conv"]}


class Int8Quantiser:
    """One branch's float32 graph and its ranges, from which graphs with any choice of INT8 operators are written."""

    def __init__(self, graph: Any, activations: Activations, dialect: Dialect) -> None:
        self.graph, self.activations, self.dialect = graph, activations, dialect
        self._typed = with_types(graph)
        self.operators: list[Operator] = operators(graph)
        self.optimisation: Optimisation = optimisation_of("int8")
        self.rest = rest_of(dialect)

    def quantise(self, chosen: Collection[str]) -> Any:
        """A `ModelProto` in which the `chosen` operators, by name, are INT8, biases corrected, the others `rest`."""
        return with_quantised(self.corrected(chosen), self.activations, self.dialect, chosen)

    def corrected(self, chosen: Collection[str]) -> Any:
        """A copy of the float32 `ModelProto`, its types inferred, with the biases of the `chosen` convolutions
        corrected.
        """
        return _corrected(self._typed, self._corrections, chosen)

    @cached_property
    def _corrections(self) -> dict[str, NDArray[np.float32]]:
        everything = [operator.name for operator in self.operators]
        quantised = with_quantised(self._typed, self.activations, self.dialect, everything)
        return _bias_corrections(self.graph, quantised, self.activations)


def rest_of(dialect: Dialect) -> Precision:
    """What is not quantised in a graph of `dialect`: float32 for CPUs, which compute nothing faster, half precision for
    TensorRT, whose networks compute as they are typed.
    """
    return "fp16" if dialect == "tensorrt" else "fp32"


def with_types(graph: Any) -> Any:
    """A copy of `graph` with the types of all its tensors. Inferring them takes as long as quantising an operator."""
    import onnx

    return onnx.shape_inference.infer_shapes(graph)


def with_quantised(graph: Any, activations: Activations, dialect: Dialect, chosen: Collection[str]) -> Any:
    """A copy of `graph`, which has its types (`with_types`), with the `chosen` operators in INT8, and all others typed
    as the dialect has the rest.
    """
    # To the quantiser, an empty list means all.
    quantised = with_nodes(graph, activations, dialect, chosen) if chosen else graph
    return to_fp16(quantised) if rest_of(dialect) == "fp16" else quantised


def with_nodes(graph: Any, activations: Activations, dialect: Dialect, chosen: Collection[str]) -> Any:
    """A copy of `graph`, which has its types (`with_types`), with Q/DQ nodes around the `chosen` operators, at least
    one; the rest stays float32.

    Weights are signed per output channel, activations per tensor. For CPUs these are unsigned, and weights have 7 bits
    where products are added in pairs in 16 bits, which 8-bit weights overflow (no VNNI); what a convolution gives is
    rounded too. TensorRT takes symmetric ranges and zero point 0 alone, no 32-bit biases, and wants what a weighted
    operator gives left as it is.
    Source: TensorRT's guide, Working with Quantized Types: explicit quantisation, placement of Q/DQ layers.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    typed = deepcopy(graph)
    # The quantiser asks for this mark of files that went through its own shape inference.
    onnx.helper.set_model_props(typed, {"onnx.infer": "onnxruntime.quant"})
    quantizer = QDQQuantizer(
        typed,
        per_channel=True,
        reduce_range=dialect == "cpu-7bit",
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if dialect == "tensorrt" else QuantType.QUInt8,
        tensors_range={
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in cut_by_relu(graph, activations).items()
        },
        nodes_to_quantize=list(chosen),
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({operator.kind for operator in operators(graph)}),
        extra_options={"WeightSymmetric": True, **(_FOR_TENSORRT if dialect == "tensorrt" else _FOR_CPUS)},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def cut_by_relu(graph: Any, activations: Activations) -> dict[str, Range]:
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
        error = (weights - integers.astype(np.float32) * scale.reshape(-1, 1, 1, 1)).sum(axis=(2, 3))
        means = activations.means[node.input[0]]
        # Output channels of a group read the input channels of that group alone; most convolutions have one group.
        groups = len(means) // error.shape[1]
        per_group = np.einsum("goi,gi->go", error.reshape(groups, -1, error.shape[1]), means.reshape(groups, -1))
        corrections[node.name] = per_group.ravel().astype(np.float32)
    return corrections


def _corrected(graph: Any, corrections: dict[str, NDArray[np.float32]], chosen: Collection[str]) -> Any:
    """A copy of `graph` with the corrections of the `chosen` convolutions added to their biases."""
    from onnx import numpy_helper

    copied = deepcopy(graph)
    stored = {entry.name: entry for entry in copied.graph.initializer}
    for node in copied.graph.node:
        if node.name in chosen and node.name in corrections:
            bias = stored[node.input[2]]
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + corrections[node.name], bias.name))
    return copied
