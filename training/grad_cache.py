"""Gradients of a loss over a whole batch, in however small parts it goes through the network, and over all ranks.

The loss of a batch couples all its descriptors. They are few numbers: the loss is taken over those of all micro-batches
and ranks, and its gradient with respect to each descriptor is carried back through the micro-batch that it came from,
computed a second time where it was not kept. Exact, apart from batch normalisation, which sees one micro-batch.
Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geodtr.training.distributed import Ranks

Outputs = tuple[Tensor, ...]
"""What a micro-batch gives, each [b, ...]: a row for each of this rank's pairs."""
Gradients = tuple[Tensor | None, ...]
"""Of the loss, with respect to each output."""


def backward(
    model: nn.Module,
    forward: Callable[[int], Outputs],
    micro_batches: int,
    loss_of: Callable[[Outputs], Tensor],
    *,
    ranks: Ranks | None = None,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    carry: Callable[[Outputs, Gradients], None] | None = None,
) -> Tensor:
    """Add to the parameters' gradients that of `loss_of` the whole batch; returns the loss, without gradient.

    `forward(i)` gives micro-batch i, the same again when asked again. `loss_of` takes the outputs of the whole batch,
    [B, ...] each, all ranks' rows of micro-batch 0 first. `scale` is a gradient scaler's. `carry` does what
    `carry_back` does, by default that function.
    """
    ranks = ranks or Ranks()
    kept = micro_batches == 1
    with ExitStack() as stack:
        if not kept:
            stack.enter_context(torch.no_grad())
            stack.enter_context(_statistics_kept(model))
        parts = [forward(index) for index in range(micro_batches)]
    leaves = tuple(
        torch.cat([ranks.gather(tensor.detach()) for tensor in of_all]).requires_grad_()
        for of_all in zip(*parts, strict=True)
    )
    loss = loss_of(leaves)
    torch.autograd.backward(scale(loss))
    size = len(leaves[0]) // micro_batches
    mine = ranks.share(size)
    for index in range(micro_batches):
        outputs = parts[index] if kept else forward(index)
        start = index * size
        rows = slice(start + mine.start, start + mine.stop)
        (carry or carry_back)(outputs, tuple(None if leaf.grad is None else leaf.grad[rows] for leaf in leaves))
    ranks.add(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    return loss.detach()


def carry_back(outputs: Outputs, gradients: Gradients) -> None:
    """Add to the parameters' gradients those of `outputs`, through the graph that they came from. An output that the
    loss does not use has None.
    """
    used = [(output, gradient) for output, gradient in zip(outputs, gradients, strict=True) if gradient is not None]
    torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation work without learning its running statistics, which would otherwise count rows twice."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    try:
        for layer, (_, seen) in zip(layers, before, strict=True):
            layer.momentum = 0.0
            layer.num_batches_tracked = None if seen is None else seen.clone()
        yield
    finally:
        for layer, (momentum, seen) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, seen
