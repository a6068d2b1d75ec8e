"""Random seeds of training: each is a function of the run's seed, the purpose, and the step.

No random state is carried from step to step, so a resumed run and several processes draw the same numbers.
"""

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """The use of a random number; each has its own stream."""

    WEIGHTS = 0
    ORDER = 1
    LAYOUT = 2
    SEMANTICS = 3
    DROPOUT = 4
    IMAGINED = 5
    HEADINGS = 6
    SECOND_LAYOUT = 7
    VIEWS = 8


def seed_of(seed: int, purpose: Purpose, *when: int) -> int:
    """A 63-bit seed; `when` is the epoch, or the step and further numbers."""
    words = np.random.SeedSequence(seed, spawn_key=(purpose, *when)).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])


def generator(seed: int, purpose: Purpose, *when: int) -> torch.Generator:
    """A CPU generator with the seed of `seed_of`."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, *when))
