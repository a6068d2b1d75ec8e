"""From a PyTorch network to an ONNX graph: raw pixels in, unit descriptors out, batch size free.

No graph reads its batch size. Where one did, OpenVINO 2026.4 read it from the first convolution, and lost that
convolution's bias, or took channel 0's for all channels, when a quantisation followed.
"""

import copy
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from geodtr.export.graph.checks import OPSET
from geodtr.export.graph.structure import GraphError
from geodtr.runtime.spec import INPUT, OUTPUT, Preprocessing
from geodtr.training.models.base import Folds

_LARGEST_BATCH = 1 << 15
_TRACED_BATCH = 2


def export_network(network: nn.Module, how: Preprocessing) -> Any:
    """`network` as an `onnx.ModelProto`, float32: images uint8 [B, H, W, 3] -> descriptors float32 [B, D], unit rows.

    Normalisation is part of the network, which is left where and as it is. Needs the `export` extra. Raises GraphError
    when the graph would read its batch size.
    """
    import onnxslim

    network = _folded(copy.deepcopy(network).cpu().eval())
    example = torch.zeros((_TRACED_BATCH, *how.shape), dtype=torch.uint8)
    with _plain_attention(), _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: _attention},
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        graph = onnxslim.slim(_without_returns(_dividing_by_rows(program.model_proto)))
    if any(node.op_type in ("Shape", "Size") for node in graph.graph.node):
        raise GraphError("the exported graph reads its batch size")
    return graph


def _folded(network: nn.Module) -> nn.Module:
    """`network` with plain weights in place of those that it computes; quantisers look at what is stored."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Folds):
            network.set_submodule(name, module.folded())
    return network


def _dividing_by_rows(graph: Any) -> Any:
    """Let each `Div` broadcast its divisor itself: PyTorch's `normalize` expands it to the dividend's shape first."""
    producer = {name: node for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        divisor = producer.get(node.input[1]) if node.op_type == "Div" else None
        if divisor is not None and divisor.op_type == "Expand":
            node.input[1] = divisor.input[0]
    return graph


def _without_returns(graph: Any) -> Any:
    """Let what reads a `Transpose` that undoes another read the first one's input.

    Where an 8-bit operator reads what lies between, only that operator then gets rounded values.
    """
    orders = {
        node.output[0]: (node.input[0], list(node.attribute[0].ints))
        for node in graph.graph.node
        if node.op_type == "Transpose"
    }
    undone = {}
    for name, (between, second) in orders.items():
        if between in orders:
            before, first = orders[between]
            if [first[axis] for axis in second] == list(range(len(first))):
                undone[name] = before
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = undone.get(name, name)
    return graph


def _attention(query: Any, key: Any, value: Any, mask: Any = None, dropout: float = 0.0, causal: bool = False) -> Any:
    """softmax(query key^T / sqrt(d)) value of [B, heads, N, d]. PyTorch's own translation transposes keys of any number
    of axes, by shapes that it reads from them.
    """
    from onnxscript import opset20 as op

    if mask is not None or dropout or causal:
        raise NotImplementedError("attention with a mask or dropout, which no network here has")
    scale = op.Constant(value_float=1 / math.sqrt(query.shape[-1]))
    return op.MatMul(op.Softmax(op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2])), axis=-1), value)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """The attention fast path is a fused operator that no ONNX op stands for."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's warnings speak of its own internals; what matters of the result is checked on the result."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
