"""Quantisable operators of a float32 graph: convolutions, and large matrix products with constant weights.

Depends on the weight names of this project's exporter. Integer types are out of scope.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

LARGE = 4096
"""Minimum number of weights of a matrix product; a smaller one costs less than rounding its input."""

_BLOCK_DEPTH = 4
WEIGHTED = ("Conv", "MatMul", "Gemm")
PROJECTION = "projection"
"""What the names of a descriptor's projection begin with: its nodes, which are never quantised, and its tensors."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A quantisable node: the tensors it reads and writes, its constant weights and bias.

    `block` is its part of the network. The precision search quantises the operators of a block together.
    """

    name: str
    kind: str
    reads: str
    writes: str
    weights: str
    bias: str | None
    block: str


def operators(graph: Any) -> list[Operator]:
    """The quantisable operators of a float32 `ModelProto`, in node order."""
    sizes = {entry.name: list(entry.dims) for entry in graph.graph.initializer}
    quantisable = []
    for node in graph.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in sizes or is_projection(node):
            continue
        dims = sizes[node.input[1]]
        if node.op_type == "Conv" or (len(dims) == 2 and prod(dims) >= LARGE):
            bias = node.input[2] if len(node.input) > 2 else None
            block = _block(node.input[1], node.op_type)
            quantisable.append(
                Operator(node.name, node.op_type, node.input[0], node.output[0], node.input[1], bias, block)
            )
    return quantisable


def is_projection(node: Any) -> bool:
    """Whether a node of a graph, or one of its operators, belongs to a descriptor's projection."""
    return bool(node.name.startswith(PROJECTION))


def _block(weights: str, kind: str) -> str:
    """The block of a weight: `branch.backbone.layers.4.0.conv1.weight` is in backbone.layers.4.0.

    All matrix products are one block, because graph optimisers rename their weights.
    """
    if kind != "Conv":
        return "products"
    *path, _ = weights.removeprefix("branch.").split(".")
    return ".".join(path[:_BLOCK_DEPTH])
