"""Write one batch's loss and gradients in float64, by rank 0 of some processes: python rank_gradients.py OUT RANKS."""

import sys

import torch
from forked_ranks import in_ranks
from torch import Tensor, nn

from geodtr.training.parallel.distributed import join_ranks, share_batch_norm
from geodtr.training.parallel.grad_cache import Outputs, backward

PAIRS, MICRO_BATCH = 8, 4


def main(out: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten()
    ).double()
    ground, aerial = torch.randn(2, PAIRS, 3, 8, 8, dtype=torch.float64)
    with join_ranks() as ranks:
        share_batch_norm(network, ranks)
        mine = ranks.share(MICRO_BATCH)

        def forward(index: int) -> Outputs:
            start = index * MICRO_BATCH
            rows = slice(start + mine.start, start + mine.stop)
            return network(ground[rows]), network(aerial[rows])

        loss = backward(network, forward, PAIRS // MICRO_BATCH, _loss, ranks=ranks)
        if ranks.is_rank_zero:
            gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
            torch.save({"loss": loss, **gradients, **dict(network.named_buffers())}, out)


def _loss(outputs: Outputs) -> Tensor:
    """Couples every pair with every other, in float64 throughout: the project's losses work in float32."""
    first, second = (nn.functional.normalize(rows, dim=1) for rows in outputs)
    between = 2 - 2 * first @ second.T
    return nn.functional.softplus(10 * (between.diagonal()[:, None] - between)).mean()


if __name__ == "__main__":
    in_ranks(int(sys.argv[2]), main, sys.argv[1])
