"""Everything random in training is a function of the seed, what it is for, and when: nothing carries over.

So a run that goes on after a break draws what it would have drawn, and so do several processes that share its work.
"""

from enum import IntEnum

import numpy as np
import torch


class For(IntEnum):
    """What a random number is for: each purpose has its own stream."""

    WEIGHTS = 0
    ORDER = 1
    LAYOUT = 2
    SEMANTICS = 3
    DROPOUT = 4
    IMAGINED = 5
    HEADINGS = 6


def seed_of(seed: int, purpose: For, *when: int) -> int:
    """A seed of 63 bits for this purpose and moment."""
    words = np.random.SeedSequence(seed, spawn_key=(purpose, *when)).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


def generator(seed: int, purpose: For, *when: int) -> torch.Generator:
    """A CPU generator seeded for this purpose and moment."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, *when))
