"""Gradient caching: the gradient of a loss over the whole batch, computed in micro-batches and over all ranks.

A contrastive loss depends on all descriptors of the batch, which are small. The loss is computed on the descriptors of
all micro-batches and ranks. Its gradient with respect to each descriptor is then backpropagated through one micro-batch
at a time, whose forward pass is repeated. Exact, except that batch normalisation sees one micro-batch.
Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geodtr.training.parallel.distributed import Ranks

Outputs = tuple[Tensor, ...]
"""Outputs of a micro-batch, each [b, ...]: one row per pair of this rank."""
Gradients = tuple[Tensor | None, ...]
"""Gradients of the loss with respect to each output."""


def backward(
    model: nn.Module,
    forward: Callable[[int], Outputs],
    micro_batches: int,
    loss_of: Callable[[Outputs], Tensor],
    *,
    ranks: Ranks | None = None,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    propagate: Callable[[Outputs, Gradients], None] | None = None,
) -> Tensor:
    """Add the gradient of the batch's loss to the parameters' gradients; return the loss, detached.

    Parameters
    ----------
    forward
        Returns the outputs of micro-batch i; deterministic, because it is called twice for each.
    loss_of
        Takes the outputs of the whole batch, [B, ...] each; the rows of micro-batch 0 of all ranks come first.
    scale
        Scales the loss, as a gradient scaler does.
    propagate
        Replaces `backpropagate`.
    """
    ranks = ranks or Ranks()
    single = micro_batches == 1
    with ExitStack() as stack:
        if not single:
            stack.enter_context(torch.no_grad())
            stack.enter_context(frozen_statistics(model))
        parts = [forward(index) for index in range(micro_batches)]
    leaves = tuple(
        torch.cat([ranks.gather(tensor.detach()) for tensor in of_all]).requires_grad_()
        for of_all in zip(*parts, strict=True)
    )
    loss = loss_of(leaves)
    torch.autograd.backward(scale(loss))
    for parameter in model.parameters():
        if parameter.grad is not None:  # one of the loss itself; every rank has all of its gradient, which ranks add
            parameter.grad /= ranks.count
    size = len(leaves[0]) // micro_batches
    share = ranks.share(size)
    for index in range(micro_batches):
        outputs = parts[index] if single else forward(index)
        start = index * size
        rows = slice(start + share.start, start + share.stop)
        (propagate or backpropagate)(outputs, tuple(None if leaf.grad is None else leaf.grad[rows] for leaf in leaves))
    ranks.add(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    return loss.detach()


def backpropagate(outputs: Outputs, gradients: Gradients) -> None:
    """Backpropagate `gradients` of `outputs` to the parameters; None marks an output that the loss does not use."""
    used = [(output, gradient) for output, gradient in zip(outputs, gradients, strict=True) if gradient is not None]
    torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Stop batch normalisation from updating its running statistics, which would otherwise count rows twice."""
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
