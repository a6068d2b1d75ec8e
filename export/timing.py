"""How fast embedders are on this machine, measured side by side in interleaved rounds.

The turn goes round the embedders, so that a neighbour's load on a shared machine falls on all alike; ratios are taken
within a round.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Literal

import numpy as np

from geodtr.runtime.manifest import Ratio, Speed
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Embedder, EmbedderPair, Images, noise

ROUNDS = 10
_TURN = 0.1
"""Seconds that a turn lasts at least: a fast embedder is called several times."""
_SETTLE = 0.02
"""Seconds between turns: the last one's threads spin for some milliseconds before they sleep."""
_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that one embedder took for each call with `batch` images, by round."""

    batch: int
    rounds: tuple[tuple[float, ...], ...]

    @property
    def calls(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def seconds(self) -> list[float]:
        """One call's, the median of each round."""
        return [median(calls) for calls in self.rounds]

    @property
    def speed(self) -> Speed:
        rates = [self.batch / seconds for seconds in self.seconds]
        return Speed(median(rates), min(rates), max(rates))

    def latency(self, share: float) -> float:
        """Milliseconds that `share` of all calls stayed within."""
        return 1e3 * float(np.quantile([call for calls in self.rounds for call in calls], share))

    def ratio(self, base: "Timing") -> Ratio:
        """How many times as fast as `base`, which was measured beside it with the same batch."""
        ratios = [other / own for own, other in zip(self.seconds, base.seconds, strict=True)]
        return Ratio(median=median(ratios), lowest=min(ratios), highest=max(ratios))


PairTiming = dict[Literal["ground", "aerial", "both"], Timing]
"""One model's timings; `both` is a call of each branch."""


def time_embedders(
    embedders: Sequence[Embedder], images: Sequence[Images], *, rounds: int = ROUNDS, track: Track = untracked
) -> list[Timing]:
    """Call each embedder with its own batch of `images`, in turn, `rounds` times over, after it is warm."""
    turns = [_calls_a_turn(embedder, batch) for embedder, batch in zip(embedders, images, strict=True)]
    taken: list[list[tuple[float, ...]]] = [[] for _ in embedders]
    for _ in track(range(rounds), "Measuring speed", rounds):
        for embedder, batch, calls, mine in zip(embedders, images, turns, taken, strict=True):
            time.sleep(_SETTLE)
            mine.append(tuple(_call(embedder, batch) for _ in range(calls)))
    return [Timing(len(batch), tuple(mine)) for batch, mine in zip(images, taken, strict=True)]


def time_pairs(
    models: Sequence[EmbedderPair],
    batch: int,
    *,
    rounds: int = ROUNDS,
    track: Track = untracked,
) -> list[PairTiming]:
    """Each branch of each model, called with `batch` images of noise of the size that it takes, and both branches.

    What images show does not change the work.
    """
    ground, aerial = (
        time_embedders(
            [model[branch] for model in models],
            [noise(model[branch].spec, batch) for model in models],
            rounds=rounds,
            track=track,
        )
        for branch in BRANCHES
    )
    return [
        {"ground": first, "aerial": second, "both": together(first, second)}
        for first, second in zip(ground, aerial, strict=True)
    ]


def together(ground: Timing, aerial: Timing) -> Timing:
    """Both branches as one: a call of each, one behind the other."""
    return Timing(
        ground.batch + aerial.batch, tuple((sum(pair),) for pair in zip(ground.seconds, aerial.seconds, strict=True))
    )


def rounded(value: float) -> str:
    """A measured figure in the digits that count, without exponent: 0.218, 2.18, 21.8, 218, 2,180."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _calls_a_turn(embedder: Embedder, images: Images) -> int:
    for _ in range(_WARM_UP):
        embedder.embed(images)
    return ceil(_TURN / _call(embedder, images))


def _call(embedder: Embedder, images: Images) -> float:
    start = time.perf_counter()
    embedder.embed(images)
    return time.perf_counter() - start
