"""Losses of GeoDTR, in forms that do not overflow in half precision.

Knows descriptors; knows nothing of models or images. Source: Zhang et al., AAAI 2023, section 3.5 and equations 5 to 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_margin_triplet(ground: Tensor, aerial: Tensor, alpha: float = 10.0) -> Tensor:
    """Mean of log(1 + exp(alpha (d_pos - d_neg))) over all in-batch negatives, both directions.

    ground, aerial: [B, D], unit rows, row i belongs to row i, B at least 2. Distances are squared: d = 2 - 2 cos.
    """
    distance = 2 - 2 * ground.float() @ aerial.float().T
    positive = distance.diagonal()
    others = ~torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    to_aerial = F.softplus(alpha * (positive[:, None] - distance))[others]
    to_ground = F.softplus(alpha * (positive[None, :] - distance))[others]
    return (to_aerial.mean() + to_ground.mean()) / 2


def counterfactual(descriptors: Tensor, imagined: Tensor, beta: float = 5.0) -> Tensor:
    """Mean of log(1 + exp(-beta d)), d the squared distance to the descriptor of a random layout. [B, D], unit rows."""
    distance = (descriptors.float() - imagined.float()).square().sum(dim=1)
    return F.softplus(-beta * distance).mean()
