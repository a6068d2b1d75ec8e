"""Losses that weight each triplet by its difficulty: HER, and SEH as reconstructed.

Works on descriptors only. Source: Cai et al., "Ground-to-Aerial Image Geo-Localization With a Hard Exemplar Reweighting
Triplet Loss", ICCV 2019, and its release. Guo et al., "Soft Exemplar Highlighting", TIP 2022, have released no code:
their abstract describes the same weights, but for simple triplets, which SEH removes.
"""

from dataclasses import dataclass
from math import exp, log, log2

import torch
import torch.nn.functional as F
from torch import Tensor

_SIMPLE = 0.1
"""HER's weight of a simple triplet, over the number of pairs in the batch."""


@dataclass(frozen=True, slots=True)
class Exemplars:
    """What weights the triplets.

    Attributes
    ----------
    scale
        Factor of the descriptors; its square takes the place of the soft margin triplet loss's alpha.
    margin
        How much farther than the positive a simple negative is, as a share of a scaled descriptor's squared length.
    removes_simple
        Whether simple triplets weigh nothing (SEH), or a little (HER).
    both_directions
        Whether aerial descriptors are anchors too. The release has ground ones only.
    detached
        Whether no gradient flows through the weights. The release lets it flow.
    """

    scale: float = 5.0
    margin: float = 0.15
    removes_simple: bool = False
    both_directions: bool = False
    detached: bool = False


def reweighted_triplet(ground: Tensor, aerial: Tensor, how: Exemplars, *, tiles: Tensor | None = None) -> Tensor:
    """Mean of weight * log(1 + exp(d_pos - d_neg)) over all pairs of the batch; a pair's own reference weighs 0.

    Parameters
    ----------
    ground, aerial
        Unit rows [B, D], float32 or wider; row i of one belongs to row i of the other.
    tiles
        int64 [B], the tile of each pair. Pairs with the same tile are not negatives of each other.
    """
    distance = _distances(ground, aerial, how.scale)
    weight = weights(distance, how, tiles=tiles)
    loss = _weighted(distance, weight)
    if how.both_directions:
        loss = (loss + _weighted(distance.T, weights(distance.T, how, tiles=tiles))) / 2
    return loss


def weights(distance: Tensor, how: Exemplars, *, tiles: Tensor | None = None) -> Tensor:
    """The weight of each triplet, from squared distances of scaled descriptors, [anchors, references], both [B, B].

    The difficulty is a logistic regression of how much nearer the negative is than the positive, rectified by half the
    margin. It is cut at the value of a negative as near as the positive, against outliers and wrong labels.
    """
    margin = how.scale**2 * how.margin
    nearer = distance.diagonal()[:, None] - distance + margin / 2
    weight = F.softplus(nearer) / log(2)
    simple, hardest = log2(1 + exp(-margin / 2)), log2(1 + exp(margin / 2))
    weight = weight.masked_fill(weight < simple, 0 if how.removes_simple else _SIMPLE / len(distance))
    weight = weight.clamp(max=hardest)
    tiles = torch.arange(len(distance), device=distance.device) if tiles is None else tiles
    weight = weight.masked_fill(tiles[:, None] == tiles[None, :], 0)
    return weight.detach() if how.detached else weight


def _distances(ground: Tensor, aerial: Tensor, scale: float) -> Tensor:
    lengths = ground.square().sum(dim=1)[:, None] + aerial.square().sum(dim=1)[None, :]
    return scale**2 * (lengths - 2 * ground @ aerial.T)


def _weighted(distance: Tensor, weight: Tensor) -> Tensor:
    return (weight * F.softplus(distance.diagonal()[:, None] - distance)).mean()
