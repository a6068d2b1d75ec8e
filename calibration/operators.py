"""Which operators of a float32 graph can be quantised: convolutions, and large products with constant weights.

Knows ONNX graphs and how this project's exporter names weights; knows nothing of integer types.
"""

from dataclasses import dataclass
from typing import Any

LARGE = 4096
"""Weights; a smaller product costs less than rounding its input does."""

_BLOCK_DEPTH = 4
WEIGHTED = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True, slots=True)
class Operator:
    """A node that can be quantised: the tensors it reads and writes, its constant weights and bias.

    `block` is the part of the network it stands in: operators of one block are quantised together or not at all where
    blocks are chosen by measured recall.
    """

    name: str
    kind: str
    reads: str
    writes: str
    weights: str
    bias: str | None
    block: str


def operators(graph: Any) -> list[Operator]:
    """The quantisable operators of a float32 `ModelProto`, in the order of its nodes."""
    sizes = {entry.name: list(entry.dims) for entry in graph.graph.initializer}
    found = []
    for node in graph.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in sizes:
            continue
        dims = sizes[node.input[1]]
        count = 1
        for size in dims:
            count *= size
        if node.op_type == "Conv" or (len(dims) == 2 and count >= LARGE):
            bias = node.input[2] if len(node.input) > 2 else None
            block = _block(node.input[1], node.op_type)
            found.append(Operator(node.name, node.op_type, node.input[0], node.output[0], node.input[1], bias, block))
    return found


def blocks(found: list[Operator]) -> dict[str, list[Operator]]:
    """The operators of each block, in their order."""
    parts: dict[str, list[Operator]] = {}
    for operator in found:
        parts.setdefault(operator.block, []).append(operator)
    return parts


def _block(weights: str, kind: str) -> str:
    """`branch.backbone.layers.4.0.conv1.weight` is in backbone.layers.4.0. Optimisers rename weights of products, which
    stand together in one block.
    """
    if kind != "Conv":
        return "products"
    *path, _ = weights.removeprefix("branch.").split(".")
    return ".".join(path[:_BLOCK_DEPTH])
