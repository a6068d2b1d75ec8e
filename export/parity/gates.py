"""What an engine must keep: gates of a run, and the limits that they are for one candidate. Knows numbers only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from geodtr.export.parity.measurements import PairingName
from geodtr.export.precision.agreement import at_twice_the_angle
from geodtr.runtime.errors import ArgumentError, ConfigError
from geodtr.runtime.names import Precision

MAX_DROP: Mapping[Precision, float] = {"fp32": 0.0, "fp16": 0.1, "int8": 0.5, "fp8": 0.5, "mixed": 0.5}
"""Points of R@1. A bundle whose blocks were chosen by recall has its own tolerance."""
LEAST_COSINE: Mapping[Precision, float] = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98, "fp8": 0.95, "mixed": 0.95}
"""A floor under every single descriptor: on few pairs recall alone would let a broken engine pass."""
COMPACT_DROP = 0.5
"""Points of R@1 that projected descriptors may lose against the model's own, in any precision."""


@dataclass(frozen=True, slots=True)
class Gates:
    """Requirements on candidates. `max_drop`: points of R@1 by precision, replaces MAX_DROP and a searched bundle's own
    tolerance; `least_cosine` replaces LEAST_COSINE. `max_compact_drop`: points of R@1 that a candidate which projects
    its descriptors may lose against the reference's own.

    statistics.decide judges recall. `accept_undecided`: undecided recall passes if every measured drop is within the
    limit; the gate records that. `require_certain`: every check needs evidence, so an unreadable typed graph is also
    undecided.

    Raises ConfigError for an unknown precision, an impossible number, or two options that contradict each other.
    """

    max_drop: Mapping[Precision, float] = field(default_factory=dict)
    least_cosine: Mapping[Precision, float] = field(default_factory=dict)
    require_certain: bool = False
    accept_undecided: bool = False
    max_compact_drop: float = COMPACT_DROP

    def __post_init__(self) -> None:
        if not 0 <= self.max_compact_drop <= 100:
            raise ArgumentError("max_compact_drop", f"is {self.max_compact_drop:g}; allowed are 0 to 100 points.")
        if self.require_certain and self.accept_undecided:
            raise ArgumentError("require_certain", "and {} contradict each other: leave one out.", "accept_undecided")
        requirements = (("max_drop", self.max_drop, 100, " points"), ("least_cosine", self.least_cosine, 1, ""))
        for what, numbers, largest, unit in requirements:
            for precision, number in numbers.items():
                if precision not in MAX_DROP or not 0 <= number <= largest:
                    raise ConfigError(
                        f"{what} has {precision}: {number:g}; allowed are {', '.join(MAX_DROP)}, each with 0 to "
                        f"{largest}{unit}."
                    )

    def limits(self, precision: Precision, tolerance: float | None, keep_cosine: float | None) -> "Limits":
        """The limits for one candidate. `tolerance`: its own, in points, if a search chose its blocks; `keep_cosine`:
        the minimum cosine of its build on the calibration images, if it had one.
        """
        points = MAX_DROP[precision] if tolerance is None else tolerance
        own_cosine = precision in self.least_cosine
        return Limits(
            max_drop=self.max_drop.get(precision, points) / 100,
            least_cosine=self.least_cosine.get(precision, LEAST_COSINE[precision]),
            promised_cosine=None if keep_cosine is None or own_cosine else at_twice_the_angle(keep_cosine),
            require_certain=self.require_certain,
            accept_undecided=self.accept_undecided,
            compact_drop=self.max_compact_drop / 100,
        )


AS_PROMISED = Gates()
"""The allowed drops and cosines of each precision."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of one candidate. `max_drop`: the share of queries by which R@1 may fall, `compact_drop` against
    descriptors that are not projected. `least_cosine`: of every descriptor with the reference's. `promised_cosine`: of
    99 in 100 descriptors; None where the build kept no cosine, or the user set one. It detects one wrong scale, which
    turns some descriptors and costs no hit on few pairs.
    """

    max_drop: float
    least_cosine: float
    promised_cosine: float | None = None
    require_certain: bool = False
    accept_undecided: bool = False
    compact_drop: float = COMPACT_DROP / 100

    def drop_of(self, pairing: PairingName) -> float:
        """The share of queries that may be lost in one way of searching."""
        return self.compact_drop if pairing == "full" else self.max_drop

    def by_cosine(self, pairing: PairingName) -> bool:
        """Whether cosines stand in for recall: no number of pairs proves that nothing is lost."""
        return pairing != "full" and not self.max_drop and self.least_cosine >= LEAST_COSINE["fp32"]
