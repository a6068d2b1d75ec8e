"""The structure of an ONNX graph: the type of each tensor, the nodes before and behind an operator."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

from geodtr.calibration.operators import WEIGHTED, is_projection
from geodtr.runtime.errors import UserError
from geodtr.runtime.spec import INPUT

SUMS = ("LayerNormalization", "InstanceNormalization", "Softmax", "ReduceL2")
"""Operators that add over many values: they stay float32."""
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


class GraphError(UserError):
    """An exported graph is not what this project promises of it: nothing is written."""


def before_first(graph: Any, op_type: str) -> list[Any]:
    """The nodes that lead from the graph's input to its first `op_type`, that one left out."""
    nodes = list(graph.graph.node)
    first = next(index for index, node in enumerate(nodes) if node.op_type == op_type)
    return _reading([INPUT], nodes[:first])


def behind_last(graph: Any) -> list[Any]:
    """The nodes that follow the network's last product, up to the graph's output: a projection is one of them."""
    nodes = list(graph.graph.node)
    last = max(index for index, node in enumerate(nodes) if node.op_type in WEIGHTED and not is_projection(node))
    return _reading(nodes[last].output, nodes[last + 1 :])


def transport(graph: Any) -> list[Any]:
    """The nodes that make a transport plan: the product that gives its costs, and all behind it up to the next product.

    Logarithms mark them; no other network takes any. Half precision's rounding of a cost changes a plan by 5 %.
    """
    nodes = list(graph.graph.node)
    logarithms = [index for index, node in enumerate(nodes) if node.op_type == "Log"]
    if not logarithms:
        return []
    first = max(index for index, node in enumerate(nodes[: logarithms[0]]) if node.op_type in WEIGHTED)
    behind = [node for node in nodes[first + 1 :] if node.op_type not in WEIGHTED]
    return [nodes[first], *_reading(nodes[first].output, behind)]


def _reading(tensors: Iterable[str], nodes: Sequence[Any]) -> list[Any]:
    """The `nodes`, which are in order, that read one of the `tensors`, directly or by others of them."""
    reached, result = set(tensors), list[Any]()
    for node in nodes:
        if reached & set(node.input):
            result.append(node)
            reached.update(node.output)
    return result


def selection(graph: Any) -> list[Any]:
    """The nodes that choose patches: from the product that gives the attention, itself left out, to the largest values.

    Levels and keys are whole numbers, and half precision holds them up to 2,048 only.
    """
    producer = {name: node for node in graph.graph.node for name in node.output}
    names = [node.input[0] for node in graph.graph.node if node.op_type == "TopK"]
    result = list[Any]()
    while names:
        node = producer.get(names.pop())
        if node is not None and node.op_type not in WEIGHTED and node not in result:
            result.append(node)
            names += node.input
    return result


def without_rounding(graph: Any) -> Any:
    """A copy of a quantised `ModelProto` in which activations are not rounded; weights stay as they are."""
    exact = deepcopy(graph)
    nodes = exact.graph.node
    quantised = {node.output[0]: node for node in nodes if node.op_type == "QuantizeLinear"}
    pairs = [node for node in nodes if node.op_type == "DequantizeLinear" and node.input[0] in quantised]
    before = {node.output[0]: quantised[node.input[0]].input[0] for node in pairs}
    for node in nodes:
        for index in range(len(node.input)):
            while node.input[index] in before:
                node.input[index] = before[node.input[index]]
    for node in (*pairs, *quantised.values()):
        nodes.remove(node)
    return exact


def tensor_types(graph: Any) -> dict[str, int]:
    """Element type of every tensor, as far as the graph and shape inference tell."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(graph).graph
    types = {entry.name: entry.data_type for entry in inferred.initializer}
    for entry in (*inferred.input, *inferred.output, *inferred.value_info):
        types[entry.name] = entry.type.tensor_type.elem_type
    return types
