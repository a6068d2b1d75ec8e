"""Adaptive sharpness-aware minimisation: a step follows the gradient at a worse point near the weights.

Source: Kwon et al., "ASAM", ICML 2021, in the form of TransGeo's release: one radius for all parameters together.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

_SMALLEST = 1e-12


@contextmanager
def climbed(parameters: Iterable[nn.Parameter], radius: float) -> Iterator[None]:
    """Move `parameters` along their gradients, as far as `radius` and their size allow, and back at the end.

    Inside, they have no gradients: the caller computes gradients at the point that was reached, which remain.
    """
    moved = [(each, each.grad) for each in parameters if each.grad is not None]
    with torch.no_grad():
        before = [each.clone() for each, _ in moved]
        norms = [torch.linalg.vector_norm(each * gradient) for each, gradient in moved]
        scale = radius / (torch.linalg.vector_norm(torch.stack(norms)) + _SMALLEST)
        for each, gradient in moved:
            each.add_(each.square() * gradient * scale)
            each.grad = None
    yield
    with torch.no_grad():
        for (each, _), value in zip(moved, before, strict=True):
            each.copy_(value)
