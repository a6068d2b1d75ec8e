"""FP8 as a property of the ONNX file: Q/DQ nodes in E4M3 around convolutions and large products.

For GPUs from Ada and Hopper on; what is not quantised is half precision. Numbers as ONNX defines them (FLOAT8E4M3FN:
four bits of exponent, three of mantissa, largest value 448); zero points are zero.
"""

from collections.abc import Collection
from copy import deepcopy
from typing import Any

import numpy as np

from geodtr.calibration.activations import Activations
from geodtr.calibration.operators import Operator, operators
from geodtr.export.precision.fp16 import to_fp16
from geodtr.runtime.engines.onnxruntime import Optimisation, optimisation_of
from geodtr.runtime.names import Dialect, Precision

LARGEST = 448.0
_SMALLEST_RANGE = 1e-6


class Fp8Quantiser:
    """One branch's float32 graph and its ranges, from which graphs with any choice of FP8 operators are written."""

    def __init__(self, graph: Any, activations: Activations) -> None:
        self.graph, self._activations = graph, activations
        self.operators: list[Operator] = operators(graph)
        self.optimisation: Optimisation = optimisation_of("fp8")
        self.dialect: Dialect = "tensorrt"  # E4M3 is written in one way, which GPUs take
        self.rest: Precision = "fp16"

    def quantise(self, chosen: Collection[str]) -> Any:
        """A `ModelProto` in which the `chosen` operators, by name, read FP8, and all others are `rest`.

        Activations have one scale a tensor, weights one an output channel.
        """
        from onnx import TensorProto, helper

        copied = deepcopy(self.graph)
        writer = _Writer(copied)
        writer.add(helper.make_tensor(_ZERO, TensorProto.FLOAT8E4M3FN, [], [0.0]))
        by_name = {operator.name: operator for operator in self.operators if operator.name in chosen}
        for node in list(copied.graph.node):
            operator = by_name.get(node.name)
            if operator is None:
                continue
            low, high = self._activations.ranges[operator.reads]
            node.input[0] = writer.activation(operator.reads, max(-low, high, _SMALLEST_RANGE) / LARGEST)
            node.input[1] = writer.weights(operator.weights, _channel_axis(node))
        writer.finish()
        return to_fp16(copied)


_ZERO = "fp8 zero"


def _channel_axis(node: Any) -> int:
    """Which axis of an operator's weights counts its outputs."""
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


class _Writer:
    """Adds Q/DQ pairs to a copied graph, each tensor's once."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._stored = {entry.name: entry for entry in model.graph.initializer}
        self._pairs: dict[str, list[Any]] = {}
        self._of_weights: list[Any] = []
        self._done: dict[str, str] = {}

    def add(self, tensor: Any) -> str:
        self._model.graph.initializer.append(tensor)
        name: str = tensor.name
        return name

    def activation(self, name: str, scale: float) -> str:
        """What `name` is after rounding to FP8."""
        from onnx import helper, numpy_helper

        if name not in self._done:
            factor = self.add(numpy_helper.from_array(np.array(scale, np.float32), f"{name} scale"))
            self._pairs[name] = [
                helper.make_node("QuantizeLinear", [name, factor, _ZERO], [f"{name} fp8"], f"quantise {name}"),
                helper.make_node(
                    "DequantizeLinear", [f"{name} fp8", factor, _ZERO], [f"{name} rounded"], f"dequantise {name}"
                ),
            ]
            self._done[name] = f"{name} rounded"
        return self._done[name]

    def weights(self, name: str, axis: int) -> str:
        """What the constant `name` is after rounding to FP8; it is stored rounded."""
        import ml_dtypes
        from onnx import TensorProto, helper, numpy_helper

        if name not in self._done:
            exact = numpy_helper.to_array(self._stored[name])
            others = tuple(each for each in range(exact.ndim) if each != axis)
            scale = np.maximum(np.abs(exact).max(axis=others), _SMALLEST_RANGE) / np.float32(LARGEST)
            spread = scale.reshape([-1 if each == axis else 1 for each in range(exact.ndim)])
            rounded = (exact / spread).astype(ml_dtypes.float8_e4m3fn)
            stored = self.add(numpy_helper.from_array(rounded, f"{name} fp8"))
            factor = self.add(numpy_helper.from_array(scale.astype(np.float32), f"{name} scale"))
            zeros = np.zeros(scale.shape, ml_dtypes.float8_e4m3fn)
            zero = self.add(numpy_helper.from_array(zeros, f"{name} zero"))
            assert self._model.graph.initializer[-1].data_type == TensorProto.FLOAT8E4M3FN
            self._of_weights.append(
                helper.make_node(
                    "DequantizeLinear", [stored, factor, zero], [f"{name} rounded"], f"dequantise {name}", axis=axis
                )
            )
            self._done[name] = f"{name} rounded"
        return self._done[name]

    def finish(self) -> None:
        """Put the new nodes where their inputs are there already, and drop the weights that nobody reads any more."""
        nodes = list(self._of_weights)
        for node in self._model.graph.node:
            nodes.append(node)
            for name in node.output:
                nodes += self._pairs.get(name, ())
        read = {name for node in nodes for name in node.input}
        kept = [entry for entry in self._model.graph.initializer if entry.name in read]
        del self._model.graph.node[:]
        self._model.graph.node.extend(nodes)
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend(kept)
