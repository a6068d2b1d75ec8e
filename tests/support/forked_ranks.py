"""The command in ranks as torchrun starts them, but forked from one process: python forked_ranks.py RANKS COMMAND...

Each process of its own would import PyTorch and its compiler again, seven seconds of one core.
"""

import sys
from collections.abc import Callable
from importlib import import_module

from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def in_ranks(count: int, function: Callable[..., None], *arguments: object) -> None:
    """Call the function in each of `count` processes, by torchrun's own agent, as `torchrun --standalone` does."""
    here = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="ranks",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(here, function)(*arguments)


def _command(*words: str) -> None:
    from geodtr.cli.main import run

    try:
        run(words)
    except SystemExit as left:
        if left.code:
            raise RuntimeError(f"geodtr-export left with code {left.code}") from None


if __name__ == "__main__":
    import_module("torch._dynamo")  # an optimiser imports it
    in_ranks(int(sys.argv[1]), _command, *sys.argv[2:])
