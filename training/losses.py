"""Losses of GeoDTR, in forms that do not overflow in half precision.

Works on descriptors only. Source: Zhang et al., AAAI 2023, section 3.5 and equations 5 to 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_margin_triplet(
    ground: Tensor, aerial: Tensor, alpha: float = 10.0, *, hardest: float = 1.0, tiles: Tensor | None = None
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
    """
    distance = 2 - 2 * ground.float() @ aerial.float().T
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
    distance = (descriptors.float() - imagined.float()).square().sum(dim=1)
    return F.softplus(-beta * distance).mean()
