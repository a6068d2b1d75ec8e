"""Simulate how often a recall gate passes, fails or stays undecided for an engine of known quality.

    python benchmarks/verdicts.py [--runs 20000] [--seed 0] [--json]

An engine has a share of queries whose hit changes (lost or gained) and a true drop in R@1. Each run draws lost and
gained hits for the three pairings; half of the changes are common to all three. geodtr.export.statistics.decide gives
the verdicts. Prints the Markdown table of docs/parity.md.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.export.parity.result import together
from geodtr.export.statistics import decide
from geodtr.runtime.names import Verdict

PAIRS = (500, 2000, 4000, 8884)
"""The last is CVUSA's test split."""
WAYS = 3
VERDICTS: tuple[Verdict, ...] = ("passed", "undecided", "failed")


@dataclass(frozen=True, slots=True)
class Engine:
    """`changed`: percentage of queries whose hit is lost or gained; `drop`, `tolerance`: true and allowed, in points.

    Raises ValueError when the drop exceeds the changes.
    """

    changed: float
    drop: float
    tolerance: float

    def __post_init__(self) -> None:
        if not abs(self.drop) <= self.changed <= 100:
            raise ValueError(f"a drop of {self.drop} points needs at least as many changes, not {self.changed} %")


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the runs by verdict: for one pairing, and for the gate, which combines all three."""

    engine: Engine
    pairs: int
    one: Mapping[Verdict, float]
    three: Mapping[Verdict, float]


INT8 = [Engine(changed, drop, 0.5) for drop in (0.0, 0.25, 0.5, 1.0, 1.5) for changed in (1.5, 3.0, 6.0)]
FP16 = [Engine(changed, drop, 0.1) for drop in (0.0, 0.1) for changed in (0.1, 0.5)]
ENGINES = (*INT8, *FP16)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the verdicts of recall gates.")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [simulate(engine, pairs, options.runs, options.seed) for engine in ENGINES for pairs in PAIRS]
    if options.json:
        json.dump([asdict(each) for each in results], sys.stdout, indent=2)
        return
    print(
        "| true drop, points | allowed | hits that change | " + " | ".join(f"{pairs:,} pairs" for pairs in PAIRS) + " |"
    )
    print("|---|---|---|" + "---|" * len(PAIRS))
    for engine in ENGINES:
        cells = [_cell(each) for each in results if each.engine == engine]
        head = f"| {engine.drop:g} | {engine.tolerance:g} | {engine.changed:g} % |"
        print(head, " | ".join(cells), "|")


def simulate(engine: Engine, pairs: int, runs: int, seed: int = 0) -> Shares:
    """Draw `runs` samples of `pairs` pairs; deterministic."""
    random = np.random.default_rng([seed, pairs, round(1000 * engine.changed), round(1000 * engine.drop)])
    common = _changes(random, engine, pairs, runs)
    ways = [_verdicts(common + _changes(random, engine, pairs, runs), pairs, engine.tolerance) for _ in range(WAYS)]
    return Shares(engine, pairs, _shares(ways[0]), _shares([together(*each) for each in zip(*ways, strict=True)]))


def _changes(random: np.random.Generator, engine: Engine, pairs: int, runs: int) -> NDArray[np.int64]:
    """Lost and gained hits for half of the engine's changes, int64 [runs, 2]."""
    lost, gained = ((engine.changed + sign * engine.drop) / 2 / 100 for sign in (1, -1))
    halves = [lost / 2, gained / 2, 1 - (lost + gained) / 2]
    return random.multinomial(pairs, halves, runs)[:, :2]


def _verdicts(changes: NDArray[np.int64], pairs: int, tolerance: float) -> list[Verdict]:
    counts, which = np.unique(changes, axis=0, return_inverse=True)
    of_counts = [decide(lost, gained, pairs, tolerance / 100) for lost, gained in counts.tolist()]
    return [of_counts[row] for row in which.ravel().tolist()]


def _shares(verdicts: list[Verdict]) -> dict[Verdict, float]:
    return {verdict: verdicts.count(verdict) / len(verdicts) for verdict in VERDICTS}


def _cell(of: Shares) -> str:
    """passed / undecided / failed, as percentages of the runs."""
    return " / ".join(_percent(of.three[verdict]) for verdict in VERDICTS)


def _percent(share: float) -> str:
    """0 and 100 are exact: none or all of the runs."""
    if share in (0, 1):
        return f"{100 * share:.0f}"
    return f"{100 * share:.2f}" if share < 0.01 or share > 0.99 else f"{100 * share:.0f}"


if __name__ == "__main__":
    main()
