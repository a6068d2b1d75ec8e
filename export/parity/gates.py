"""What an engine must keep, and the judgement of one that was measured, in words.

Knows figures; knows nothing of models or files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

from geodtr.export.agreement import at_twice_the_angle
from geodtr.export.batches import BatchInvariance, batch_fault
from geodtr.export.parity.result import (
    PAIRINGS,
    BranchAgreement,
    BranchAudit,
    Change,
    Check,
    CheckName,
    Gate,
    Pairing,
    Stage,
    StageName,
)
from geodtr.export.statistics import pairs_to_be_sure
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Precision, Verdict

MAX_DROP: Mapping[Precision, float] = {"fp32": 0.0, "fp16": 0.1, "int8": 0.5, "fp8": 0.5, "mixed": 0.5}
"""Points of R@1. A bundle whose blocks were chosen by recall has its own tolerance."""
LEAST_COSINE: Mapping[Precision, float] = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98, "fp8": 0.95, "mixed": 0.95}
"""A floor under every single descriptor: on few pairs recall alone would let a broken engine pass."""
_LONGEST_NORM_ERROR = 1e-3


@dataclass(frozen=True, slots=True)
class Gates:
    """What is asked of candidates. `max_drop`: points of R@1 by precision, in place of MAX_DROP and of a searched
    bundle's own tolerance; `least_cosine` in place of LEAST_COSINE.

    `require_certain`: the whole 95 % interval of the drop must lie within what is allowed, and the graph must have been
    looked into; otherwise the verdict is undecided.

    Raises ConfigError for a name that is no precision, or a number that cannot be.
    """

    max_drop: Mapping[Precision, float] = field(default_factory=dict)
    least_cosine: Mapping[Precision, float] = field(default_factory=dict)
    require_certain: bool = False

    def __post_init__(self) -> None:
        asked = (("max_drop", self.max_drop, 100, " points"), ("least_cosine", self.least_cosine, 1, ""))
        for what, numbers, largest, unit in asked:
            for precision, number in numbers.items():
                if precision not in MAX_DROP or not 0 <= number <= largest:
                    raise ConfigError(
                        f"{what} has {precision}: {number:g}; allowed are {', '.join(MAX_DROP)}, each with 0 to "
                        f"{largest}{unit}."
                    )

    def drop_of(self, precision: Precision, tolerance: float | None) -> float:
        """The share of queries by which R@1 may fall; `tolerance`, in points, is the bundle's own."""
        own = MAX_DROP[precision] if tolerance is None else tolerance
        return self.max_drop.get(precision, own) / 100

    def cosine_of(self, precision: Precision) -> float:
        """What every single descriptor must keep."""
        return self.least_cosine.get(precision, LEAST_COSINE[precision])

    def promise_of(self, precision: Precision, keep_cosine: float | None) -> float | None:
        """What 99 of 100 descriptors must keep of an engine whose build kept `keep_cosine` on its calibration images:
        twice that angle. None where the build made no such promise, or the user set a cosine of his own.

        On few pairs it tells one wrong scale, which turns some descriptors and costs no hit yet.
        """
        return None if keep_cosine is None or precision in self.least_cosine else at_twice_the_angle(keep_cosine)


AS_PROMISED = Gates()
"""The allowed drops and cosines of each precision."""


def may_lose(max_drop: float, queries: int) -> int:
    """How many hits at rank 1 may be lost where R@1 may fall by the share `max_drop`: never less than one query, unless
    nothing may.
    """
    return max(1, floor(max_drop * queries + 1e-9)) if max_drop else 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a gate is shown of one candidate. `other_input`: how its images are prepared otherwise than the reference's,
    in words; None where they are not.
    """

    branches: Sequence[BranchAgreement]
    pairings: Sequence[Pairing]
    batches: Sequence[BatchInvariance]
    audit: Sequence[BranchAudit]
    other_input: str | None
    stages: Sequence[Stage]


def judge(
    measured: Measured, max_drop: float, least_cosine: float, promised_cosine: float | None, *, require_certain: bool
) -> Gate:
    """`max_drop`: a share of the queries. Every comparison is written so that a NaN fails it."""
    queries = measured.pairings[0].recall.queries
    allowed = may_lose(max_drop, queries)
    # One that failed before those that passed, and the one that may have lost most.
    worst = min(measured.pairings, key=lambda each: (_net(each) <= allowed, each.at_1.low))
    drop, low, high = -worst.at_1.change, -worst.at_1.high, -worst.at_1.low
    needed = [pairs_to_be_sure(each.at_1.lost, each.at_1.gained, queries, max_drop) for each in measured.pairings]
    known = [number for number in needed if number is not None]
    enough = max(known) if len(known) == len(needed) else None
    by_cosine = not max_drop and least_cosine >= LEAST_COSINE["fp32"]
    certain = None if by_cosine else all(-each.at_1.low <= max_drop for each in measured.pairings)
    checks = (
        *(_recall(pairing, allowed) for pairing in measured.pairings),
        *(_cosine(branch, least_cosine) for branch in measured.branches),
        *(_promise(branch, promised_cosine) for branch in measured.branches if promised_cosine is not None),
        *(_finite(branch) for branch in measured.branches),
        *(_length(branch) for branch in measured.branches),
        *(_batches(each) for each in measured.batches),
        _input(measured.other_input),
        *(_graph(each, require_certain=require_certain) for each in measured.audit),
    )
    undecided: Verdict = "undecided" if require_certain and certain is False else "passed"
    failed = {check.name for check in checks if check.verdict == "failed"}
    own_failed = _net(measured.pairings[0]) > allowed
    return Gate(
        max_drop=max_drop,
        may_lose=allowed,
        least_cosine=least_cosine,
        promised_cosine=promised_cosine,
        pairing=worst.name,
        drop=drop,
        low=low,
        high=high,
        certain=certain,
        pairs_to_be_sure=enough,
        checks=checks,
        blamed=_blamed(measured.stages, failed, own_failed=own_failed),
        verdict=together(undecided, *(check.verdict for check in checks)),
        reasons=(
            *(check.words for check in checks if check.verdict != "passed"),
            _how_sure(worst.at_1, max_drop, queries, certain, enough),
        ),
    )


def together(*verdicts: Verdict) -> Verdict:
    """Failed when one of several is, else undecided when one is."""
    return "failed" if "failed" in verdicts else "undecided" if "undecided" in verdicts else "passed"


def _how_sure(worst: Change, max_drop: float, queries: int, certain: bool | None, enough: int | None) -> str:
    """Whether so many queries are enough to be sure of the drop, in a sentence."""
    if certain is None:
        return "Nothing may be lost, which no number of pairs makes certain: here the cosine of every image decides."
    drop, least, most, may = (_points(share) for share in (-worst.change, -worst.high, -worst.low, max_drop))
    if -worst.high > max_drop:
        return (
            f"{queries} pairs are enough to be sure that it is too much: with 95 % confidence the drop in R@1 is at "
            f"least {least} points, {may} are allowed."
        )
    span = f"with 95 % confidence the drop in R@1 is at most {most} points, {may} are allowed"
    if certain:
        return f"{queries} pairs are enough to be sure: {span}."
    if not max_drop:
        return f"No number of pairs makes certain that nothing is lost: {span}."
    if enough is None:
        weighs = -worst.change * queries < 1.5
        more = "One query weighs more than that on a set this small" if weighs else "More would not help"
        return f"{queries} pairs are too few to be sure: {span}. {more}: the measured drop is {drop}."
    return f"{queries} pairs are too few to be sure: {span}. About {enough:,} would be enough, if they change alike."


def _recall(pairing: Pairing, allowed: int) -> Check:
    at_1, queries = pairing.at_1, pairing.recall.queries
    words = (
        f"{PAIRINGS[pairing.name]}: R@1 {100 * at_1.before:.1f} -> {100 * at_1.after:.1f}, {at_1.lost} of "
        f"{queries} hits lost and {at_1.gained} gained; {allowed} more may be lost than gained"
    )
    return Check("recall", _verdict(_net(pairing) <= allowed), words)


def _cosine(branch: BranchAgreement, least: float) -> Check:
    words = f"{branch.branch}: smallest cosine {branch.smallest_cosine:.6f}, at least {least} is asked"
    return Check("cosine", _verdict(branch.smallest_cosine >= least), words)


def _promise(branch: BranchAgreement, least: float) -> Check:
    words = (
        f"{branch.branch}: one descriptor in a hundred has a cosine below {branch.low_cosine:.6f}; by what the build "
        f"kept on its calibration images, {least:.6f} is asked"
    )
    return Check("promise", _verdict(branch.low_cosine >= least), words)


def _finite(branch: BranchAgreement) -> Check:
    words = f"{branch.branch}: {branch.nan} descriptors hold NaN and {branch.infinite} infinity, of {branch.images}"
    return Check("finite", _verdict(branch.nan + branch.infinite == 0), words)


def _length(branch: BranchAgreement) -> Check:
    words = f"{branch.branch}: lengths differ from 1 by {branch.norm_error:.1e} at most, {_LONGEST_NORM_ERROR:g} may be"
    return Check("length", _verdict(branch.norm_error <= _LONGEST_NORM_ERROR), words)


def _batches(each: BatchInvariance) -> Check:
    sizes = ", ".join(map(str, each.batches))
    fault = batch_fault(each)
    alike = f"rows do not depend on their batch (sizes {sizes}; smallest cosine {each.smallest_cosine:.6f})"
    return Check(
        "batches", _verdict(fault is None), f"{each.branch}: {alike if fault is None else 'the engine ' + fault}"
    )


def _input(other: str | None) -> Check:
    return Check("preprocessing", _verdict(other is None), other or "images are prepared as for the reference")


def _graph(each: BranchAudit, *, require_certain: bool) -> Check:
    if each.unread is not None:
        verdict: Verdict = "undecided" if require_certain else "passed"
        return Check("graph", verdict, f"{each.branch}: the typed graph was not looked into ({each.unread})")
    words = "; ".join(each.faults) or "the typed graph computes in the precisions that its manifest says"
    return Check("graph", _verdict(not each.faults), f"{each.branch}: {words}")


def _blamed(stages: Sequence[Stage], failed: set[CheckName], *, own_failed: bool) -> StageName | None:
    """The stage that most hits went in, where the engine's own gallery lost too many, as stages are ranked in their
    own; where another mixture did or descriptors alone, the one that turned them furthest. A row that depends on its
    batch is the engine's doing, a wrong graph the typed file's. None where no stages were run.
    """
    if not stages:
        return None
    if failed & {"recall", "cosine", "promise", "finite", "length"}:
        nearness = {stage.name: min(each.smallest_cosine for each in stage.from_previous) for stage in stages}
        if own_failed:
            return max(stages, key=lambda stage: (stage.step.lost - stage.step.gained, -nearness[stage.name])).name
        return min(stages, key=lambda stage: nearness[stage.name]).name
    if "graph" in failed:
        return "typed"
    return "engine" if "batches" in failed else None


def _net(pairing: Pairing) -> int:
    return pairing.at_1.lost - pairing.at_1.gained


def _verdict(good: bool) -> Verdict:
    return "passed" if good else "failed"


def _points(share: float) -> str:
    return f"{100 * share:.2f}"
