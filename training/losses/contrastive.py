"""Losses of GeoDTR and Sample4Geo, in forms that do not overflow in half precision.

Works on descriptors only. Sources: Zhang et al., AAAI 2023, section 3.5 and equations 5 to 7; Deuser et al., ICCV 2023,
section 3.2.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Descriptors of both views [B, G] and [B, A] -> [B, B], from -1 to 1."""


def dot(ground: Tensor, aerial: Tensor) -> Tensor:
    """The cosines of unit rows."""
    return ground @ aerial.T


def soft_margin_triplet(
    ground: Tensor,
    aerial: Tensor,
    alpha: float = 10.0,
    *,
    hardest: float = 1.0,
    tiles: Tensor | None = None,
    similarity: Similarity = dot,
) -> Tensor:
    """Mean of log(1 + exp(alpha (d_pos - d_neg))) over all in-batch negatives, in both directions.

    Distances are squared: d = 2 - 2 cos.

    Parameters
    ----------
    ground, aerial
        Unit rows [B, D]; row i of one belongs to row i of the other; B at least 2.
    hardest
        Share of each direction's triplets, by largest loss, that count.
    tiles
        int64 [B], the tile of each pair. Pairs with the same tile are not negatives of each other.
    similarity
        What compares all of one view with all of the other; the cosine by default.
    """
    distance = 2 - 2 * similarity(_wide(ground), _wide(aerial))
    positive = distance.diagonal()
    tiles = torch.arange(len(distance), device=distance.device) if tiles is None else tiles
    negatives = tiles[:, None] != tiles[None, :]
    to_aerial = F.softplus(alpha * (positive[:, None] - distance))[negatives]
    to_ground = F.softplus(alpha * (positive[None, :] - distance))[negatives]
    return (_mean_of_hardest(to_aerial, hardest) + _mean_of_hardest(to_ground, hardest)) / 2


def _mean_of_hardest(losses: Tensor, share: float) -> Tensor:
    if not len(losses):
        return losses.sum()  # all pairs share one tile: nothing to learn, and no 0 / 0
    if share < 1:
        losses = losses.topk(max(1, int(share * len(losses)))).values
    return losses.mean()


def counterfactual(descriptors: Tensor, imagined: Tensor, beta: float = 5.0) -> Tensor:
    """Mean of log(1 + exp(-beta d)), d the squared distance to the descriptor of a random layout. [B, D], unit rows."""
    distance = (_wide(descriptors) - _wide(imagined)).square().sum(dim=1)
    return F.softplus(-beta * distance).mean()


def info_nce(
    ground: Tensor,
    aerial: Tensor,
    logit_scale: Tensor,
    label_smoothing: float = 0.1,
    *,
    tiles: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each row's own reference among all of the batch, averaged over both directions.

    Parameters
    ----------
    ground, aerial
        Unit rows [B, D]; row i of one belongs to row i of the other.
    logit_scale
        Logarithm of the factor of the cosines, a scalar that may be trained.
    label_smoothing
        Share of the target that is spread evenly over all references of the batch.
    tiles
        int64 [B], the tile of each pair. Pairs with the same tile are not negatives of each other.
    """
    logits = logit_scale.exp() * _wide(ground) @ _wide(aerial).T
    if tiles is None:
        twins = torch.zeros_like(logits, dtype=torch.bool)
    else:
        twins = (tiles[:, None] == tiles[None, :]).fill_diagonal_(False)
    return (_cross_entropy(logits, twins, label_smoothing) + _cross_entropy(logits.T, twins, label_smoothing)) / 2


def _cross_entropy(logits: Tensor, left_out: Tensor, smoothing: float) -> Tensor:
    """Of the diagonal's class in each row [B, B], without the classes that are `left_out`."""
    chances = logits.masked_fill(left_out, -torch.inf).log_softmax(dim=1)
    mean = chances.masked_fill(left_out, 0).sum(dim=1) / (~left_out).sum(dim=1)
    return -((1 - smoothing) * chances.diagonal() + smoothing * mean).mean()


def _wide(rows: Tensor) -> Tensor:
    """At least float32."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
