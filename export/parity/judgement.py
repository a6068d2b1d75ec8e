"""The judgement of a measured engine by its limits, in words.

Knows figures; knows nothing of models or files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from geodtr.export.build.batches import BatchInvariance, batch_fault
from geodtr.export.parity.gates import Limits
from geodtr.export.parity.measurements import (
    PAIRINGS,
    BranchAgreement,
    BranchAudit,
    Change,
    Pairing,
    Stage,
    StageName,
)
from geodtr.export.parity.result import Check, CheckName, Gate, together
from geodtr.export.statistics import decide, is_within, pairs_to_decide
from geodtr.runtime.names import Verdict

_LONGEST_NORM_ERROR = 1e-3


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


def judge(measured: Measured, limits: Limits) -> Gate:
    """The verdict on one candidate. Every comparison is written so that a NaN fails it."""
    recalls = [_Recall.of(pairing, limits) for pairing in measured.pairings]
    worst = min(
        recalls, key=lambda each: (_WORST_FIRST.index(each.evidence), each.by_cosine, each.is_full, each.change.low)
    )
    undecided = [each for each in recalls if each.evidence == "undecided" and not each.by_cosine]
    numbers = [each.pairs_to_decide for each in undecided if each.pairs_to_decide is not None]
    is_open = worst in undecided
    enough = max(numbers) if is_open and len(numbers) == len(undecided) else None
    checks = (
        *(each.check for each in recalls),
        *(_cosine(branch, limits.least_cosine) for branch in measured.branches),
        *(check for branch in measured.branches for check in _patches(branch, limits.least_cosine)),
        *(
            _promise(branch, limits.promised_cosine)
            for branch in measured.branches
            if limits.promised_cosine is not None
        ),
        *(_finite(branch) for branch in measured.branches),
        *(_length(branch) for branch in measured.branches),
        *(_batches(each) for each in measured.batches),
        _input(measured.other_input),
        *(_graph(each, require_certain=limits.require_certain) for each in measured.audit),
    )
    of_projection = [each.check for each in recalls if each.is_full]  # which no stage is to blame for
    failed = {check.name for check in checks if check.verdict == "failed" and check not in of_projection}
    accepted = is_open and all(each.check.verdict == "passed" for each in recalls)
    return Gate(
        max_drop=worst.max_drop,
        least_cosine=limits.least_cosine,
        promised_cosine=limits.promised_cosine,
        pairing=worst.pairing.name,
        drop=-worst.change.change,
        low=-worst.change.high,
        high=-worst.change.low,
        certain=None if worst.by_cosine else worst.evidence == "passed",
        accepted=accepted,
        pairs_to_decide=enough,
        checks=checks,
        blamed=_blamed(measured.stages, failed, own_failed=recalls[0].evidence == "failed"),
        verdict=together(*(check.verdict for check in checks)),
        reasons=(
            *(check.words for check in checks if check.verdict != "passed"),
            _evidence(worst, enough, accepted=accepted),
            *(
                _evidence(each, each.pairs_to_decide, accepted=accepted)
                for each in recalls
                if each.is_full and each is not worst
            ),
        ),
    )


_WORST_FIRST: tuple[Verdict, ...] = ("failed", "undecided", "passed")


@dataclass(frozen=True, slots=True)
class _Recall:
    """One way of searching. `max_drop`: the share of queries that may be lost; `by_cosine`: whether cosines stand in
    for recall. `evidence`: what its pairs prove by statistics.decide; `check`: what the gate makes of it.
    `pairs_to_decide`: None where it is decided or no number would decide it.
    """

    pairing: Pairing
    max_drop: float
    by_cosine: bool
    evidence: Verdict
    pairs_to_decide: int | None
    check: Check

    @classmethod
    def of(cls, pairing: Pairing, limits: Limits) -> "_Recall":
        at_1, queries, max_drop = pairing.at_1, pairing.recall.queries, limits.drop_of(pairing.name)
        evidence = decide(at_1.lost, at_1.gained, queries, max_drop)
        accepted, by_cosine = False, limits.by_cosine(pairing.name)
        verdict = evidence
        if evidence == "undecided" and by_cosine:
            verdict = "passed"
        elif evidence == "undecided" and limits.accept_undecided:
            accepted = is_within(at_1.lost, at_1.gained, queries, max_drop)
            verdict = "passed" if accepted else evidence
        words = (
            f"{PAIRINGS[pairing.name]}: R@1 {100 * at_1.before:.1f} -> {100 * at_1.after:.1f}, {at_1.lost} of "
            f"{queries} hits lost and {at_1.gained} gained; a drop of {_points(-at_1.change)} points "
            f"({_points(-at_1.high)} to {_points(-at_1.low)}), {_points(max_drop)} are allowed"
        )
        words += "; undecided, accepted" if accepted else ""
        needed = pairs_to_decide(at_1.lost, at_1.gained, queries, max_drop)
        return cls(pairing, max_drop, by_cosine, evidence, needed, Check("recall", verdict, words, accepted))

    @property
    def change(self) -> Change:
        return self.pairing.at_1

    @property
    def is_full(self) -> bool:
        return self.pairing.name == "full"


def _evidence(of: _Recall, enough: int | None, *, accepted: bool) -> str:
    """What the pairs prove of recall, in sentences."""
    queries, change = of.pairing.recall.queries, of.change
    least, most, may = (_points(share) for share in (-change.high, -change.low, of.max_drop))
    sure = "with 95 % confidence R@1 falls by"
    if of.is_full:
        sure = "the projection included, " + sure
    if of.evidence == "passed":
        return f"{queries} pairs decide recall: {sure} at most {most} points, {may} are allowed."
    if of.evidence == "failed":
        return f"{queries} pairs decide recall: {sure} at least {least} points, {may} are allowed."
    if of.by_cosine:
        return "No drop is allowed, which no number of pairs can prove: the cosine of every image decides."
    span = f"{queries} pairs do not decide recall: {sure} {least} to {most} points, {may} are allowed."
    if accepted:
        span += f" Accepted, because the measured drop of {_points(-change.change)} points is within that."
    if -change.high > of.max_drop:
        span += f" Chance alone loses {change.lost} and gains {change.gained} too often to call it failed."
    if enough is not None:
        return f"{span} About {enough:,} pairs would decide, if hits change at the same rate."
    if not of.max_drop:
        return f"{span} No number of pairs proves that nothing is lost."
    return f"{span} No number of pairs would decide: the measured drop is exactly what is allowed."


def _cosine(branch: BranchAgreement, least: float) -> Check:
    words = f"{branch.branch}: smallest cosine {branch.counted_cosine:.6f}, at least {least} is asked"
    if branch.counted_cosine > branch.smallest_cosine:
        words += f"; {branch.smallest_cosine:.6f} where a rounding may have exchanged patches"
    return Check("cosine", _verdict(branch.counted_cosine >= least), words)


def _patches(branch: BranchAgreement, least: float) -> Iterator[Check]:
    """The descriptors apart from the choice of patches, where the graphs were compared."""
    if branch.patches is not None:
        cosine = branch.patches.smallest_cosine
        words = f"{branch.branch}, float32's patches: smallest cosine {cosine:.6f}, at least {least} is asked"
        yield Check("cosine", _verdict(cosine >= least), words)


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
    words = "; ".join(each.faults) or "the typed graph computes in the precisions of its manifest"
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


def _verdict(good: bool) -> Verdict:
    return "passed" if good else "failed"


def _points(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:.2f}"  # no minus before zero
