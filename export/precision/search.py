"""The fastest choice of quantised blocks that is shown to keep its recall within a tolerance.

First each block alone: what it costs in cosine and recall, what it gains in speed. Then choices of many, cheapest per
gain first: all of them, the longest run of them that holds (by halving), and what can still be added to it. At last the
choices that held are timed together. Knows a workbench and numbers; knows nothing of graphs or files but its journal.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.export.backends.base import ignore_warning
from geodtr.export.precision.journal import Notes
from geodtr.export.precision.trial_engines import Blocks
from geodtr.export.statistics import Drop, decide, is_within, pairs_to_decide
from geodtr.runtime.errors import Undecided, UserError
from geodtr.runtime.manifest import SensitivityEntry, TrialEntry
from geodtr.runtime.names import BRANCHES, Branch, Verdict
from geodtr.runtime.progress import Track, untracked

_TIMED, _TIMED_AGAIN = 8, 3
_TOGETHER = 4
"""Blocks whose engines are open at once; of one of them a kill may cost the measurement."""
_SLOWEST_WORTH_TRYING = 0.97


class Bench(Protocol):
    """The interface of a search to the engines that it builds and measures: see Workbench."""

    @property
    def blocks(self) -> list[str]: ...

    @property
    def queries(self) -> int: ...

    def operators(self, branch: Branch, chosen: Blocks) -> list[str]: ...

    def cosine(self, chosen: Blocks) -> NDArray[np.float32]: ...

    def drop(self, chosen: Blocks, hopeless: Callable[[Drop], bool] = ...) -> Drop: ...

    def speeds(self, choices: Sequence[Blocks], *, track: Track = ...) -> list[float]: ...


class NoChoiceHolds(UserError):
    """Not one block can be quantised within the tolerance, or none makes the engine faster."""


class UndecidedSearch(Undecided):
    """The pairs are too few to show that any choice is within the tolerance."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The choice, its trial, and everything that was measured on the way to it. `accepted`: the pairs do not decide
    whether it is within the tolerance, and the user accepts that.
    """

    chosen: tuple[str, ...]
    trial: TrialEntry
    sensitivity: tuple[SensitivityEntry, ...]
    trials: tuple[TrialEntry, ...]
    accepted: bool


def search(
    bench: Bench,
    tolerance: float,
    key: str,
    journal: Path,
    *,
    accept_undecided: bool = False,
    notice: Callable[[str], None] = ignore_warning,
    track: Track = untracked,
) -> Found:
    """Find the choice. `tolerance`: the drop in R@1 that is allowed, in points. A choice holds where statistics.decide
    passes it; with `accept_undecided` also where the pairs leave it undecided and its measured drop is within the
    tolerance.

    The same pairs judge every choice, so the best of many is flattered: parity on other pairs is the proof.

    `journal` is written after each measurement; a search of the same `key` continues from it, one of another starts
    over and calls `notice`. Raises UndecidedSearch where pairs are too few (before any work, where even an unchanged
    engine would not pass), NoChoiceHolds, and JournalError when `journal` is something else.
    """
    if not accept_undecided:
        _check_pairs(bench.queries, tolerance)
    notes = Notes(journal, key, notice)
    sensitivity = _sensitivity(bench, notes, track)
    order = [each.block for each in sorted(sensitivity, key=_cost_per_gain)]
    faster_alone = [each.block for each in sensitivity if each.speed >= _SLOWEST_WORTH_TRYING]

    def acceptable(trial: TrialEntry) -> bool:
        return allowed(trial, tolerance, accept_undecided=accept_undecided)

    def holds(chosen: Sequence[str]) -> bool:
        return acceptable(_trial(bench, notes, frozenset(chosen), tolerance))

    # A block that is slower alone may not be beside others: between two quantised ones nothing is converted.
    everything, without_slower = holds(order), holds(faster_alone)
    for quarter in (1, 2, 3):  # fewer blocks: points of the frontier, for the report
        holds(order[: -(-len(order) * quarter // 4)])
    if not (everything or without_slower):
        best = order[: _longest(order, holds)]
        for block in track(order[len(best) :], "Adding blocks", len(order) - len(best)):
            if holds([*best, block]):
                best.append(block)
        # One block that saves much and costs all that is allowed is never reached from the cheap end; with it, what is
        # found saves at least half of the most (the greedy knapsack: Dantzig, Operations Research 5, 1957).
        any(holds([each.block]) for each in sorted(sensitivity, key=lambda each: -each.speed))
    held = [each for each in notes.held.trials if acceptable(each)]
    rest = [each for each in notes.held.trials if each.complete and each not in held]
    undecided = [each for each in rest if may_hold(each, tolerance)]
    failed = [each for each in rest if each not in undecided]
    shown = [each for some in (held, undecided, failed) for each in _quickest(some, sensitivity)]
    speeds = bench.speeds([frozenset(each.blocks) for each in shown], track=track)
    timed = tuple(msgspec.structs.replace(each, speed=speed) for each, speed in zip(shown, speeds, strict=True))
    # The largest of several noisy medians is biased upwards: the best are timed once more, and only that counts.
    holding = sorted((each for each in timed if acceptable(each)), key=_speed)[-_TIMED_AGAIN:]
    again = bench.speeds([frozenset(each.blocks) for each in holding], track=track) if len(holding) > 1 else []
    final = {each.blocks: speed for each, speed in zip(holding, again, strict=False)}
    timed = tuple(msgspec.structs.replace(each, speed=final.get(each.blocks, each.speed)) for each in timed)
    holding = [each for each in timed if each.blocks in {one.blocks for one in holding}]
    fastest = max(holding, key=_speed, default=None)
    if fastest is None or _speed(fastest) <= 1:
        _check_undecided([each for each in timed if _speed(each) > 1], tolerance)
        raise NoChoiceHolds(
            f"No choice of quantised blocks is both within {tolerance} points of R@1 and faster than none quantised "
            "here. Build --precision fp16 or fp32, allow more by --tolerance, or calibrate otherwise (--method, "
            "--select)."
        )
    others = tuple(each for each in notes.held.trials if each.blocks not in {one.blocks for one in timed})
    accepted = trial_verdict(fastest, tolerance) != "passed"
    return Found(
        chosen=fastest.blocks, trial=fastest, sensitivity=sensitivity, trials=(*timed, *others), accepted=accepted
    )


def _speed(trial: TrialEntry) -> float:
    return trial.speed or 0


def trial_verdict(trial: TrialEntry, tolerance: float) -> Verdict:
    """What a trial's pairs prove about a drop of `tolerance` points."""
    return decide(trial.lost, trial.gained, trial.queries, tolerance / 100)


def may_hold(trial: TrialEntry, tolerance: float) -> bool:
    """Whether a complete trial is undecided, and its measured drop is within `tolerance` points."""
    within = is_within(trial.lost, trial.gained, trial.queries, tolerance / 100)
    return trial.complete and within and trial_verdict(trial, tolerance) == "undecided"


def allowed(trial: TrialEntry, tolerance: float, *, accept_undecided: bool) -> bool:
    """Whether a complete trial may be chosen."""
    passed = trial.complete and trial_verdict(trial, tolerance) == "passed"
    return passed or (accept_undecided and may_hold(trial, tolerance))


def _check_pairs(queries: int, tolerance: float) -> None:
    """Raise UndecidedSearch where not even an engine that changes nothing would pass on so many pairs."""
    if decide(0, 0, queries, tolerance / 100) == "passed":
        return
    least = pairs_to_decide(0, 0, queries, tolerance / 100)
    if least is None:
        raise UndecidedSearch(
            f"No number of pairs proves a drop of at most {tolerance:g} points. Allow more by --tolerance, or add "
            "--accept-undecided to choose by the measured drop."
        )
    raise UndecidedSearch(
        f"{queries} pairs cannot prove a drop of at most {tolerance:g} points, even if no hit changes: that takes "
        f"{least:,} pairs, and more where hits change. {_MORE_PAIRS}"
    )


def _check_undecided(trials: Sequence[TrialEntry], tolerance: float) -> None:
    """Raise UndecidedSearch where `trials` hold a choice that more pairs may prove to be within the tolerance."""
    undecided = [each for each in trials if may_hold(each, tolerance)]
    if not undecided:
        return
    fastest = max(undecided, key=_speed)
    enough = pairs_to_decide(fastest.lost, fastest.gained, fastest.queries, tolerance / 100)
    more = "" if enough is None else f" About {enough:,} pairs would decide the fastest."
    raise UndecidedSearch(
        f"{fastest.queries} pairs prove of no choice of blocks that R@1 falls by at most {tolerance:g} points. "
        f"{len(undecided)} choices that are faster than none quantised are undecided; their measured drop is within "
        f"that.{more} {_MORE_PAIRS}"
    )


_MORE_PAIRS = (
    "Name more by --recall-on (a generated world: geodtr-export world OUT --pairs N), or add --accept-undecided to "
    "choose by the measured drop."
)


def _sensitivity(bench: Bench, notes: Notes, track: Track) -> tuple[SensitivityEntry, ...]:
    """Each block quantised alone; a block that was measured before keeps what was found."""
    left = bench.blocks[len(notes.held.sensitivity) :]
    for first in track(range(0, len(left), _TOGETHER), "Blocks alone", -(-len(left) // _TOGETHER)):
        some = [frozenset({block}) for block in left[first : first + _TOGETHER]]
        for chosen, speed in zip(some, bench.speeds(some), strict=True):
            notes.write(sensitivity=(*notes.held.sensitivity, _alone(bench, chosen, speed)))
    return notes.held.sensitivity


def _alone(bench: Bench, chosen: Blocks, speed: float) -> SensitivityEntry:
    cosine, drop = bench.cosine(chosen), bench.drop(chosen)
    return SensitivityEntry(
        block="".join(chosen),
        operators=sum(len(bench.operators(branch, chosen)) for branch in BRANCHES),
        mean_cosine=float(cosine.mean()),
        smallest_cosine=float(cosine.min()),
        lost=drop.lost,
        gained=drop.gained,
        speed=speed,
    )


def _trial(bench: Bench, notes: Notes, chosen: Blocks, tolerance: float) -> TrialEntry:
    named = tuple(sorted(chosen))
    for held in notes.held.trials:
        if held.blocks == named:
            return held

    def hopeless(drop: Drop) -> bool:
        return decide(drop.lost, drop.gained, drop.queries, tolerance / 100) == "failed"

    drop = bench.drop(chosen, hopeless)
    trial = TrialEntry(
        blocks=named,
        queries=drop.queries,
        complete=drop.queries == bench.queries,
        lost=drop.lost,
        gained=drop.gained,
        low=drop.low,
        high=drop.high,
    )
    notes.write(trials=(*notes.held.trials, trial))
    return trial


def _longest(order: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> int:
    """Length of a beginning of `order` that holds, found by halving: one that is one longer does not."""
    known, too_long = 0, len(order)
    while too_long - known > 1:
        middle = (known + too_long) // 2
        if holds(order[:middle]):
            known = middle
        else:
            too_long = middle
    return known


def _cost_per_gain(entry: SensitivityEntry) -> float:
    """Lost cosine by time saved: recall itself is too coarse to order single blocks by."""
    saved = 1 - 1 / entry.speed
    return (1 - entry.mean_cosine) / max(saved, 1e-3)


def _quickest(trials: Sequence[TrialEntry], sensitivity: Sequence[SensitivityEntry]) -> list[TrialEntry]:
    """The few with the shortest expected times."""
    return sorted(trials, key=lambda each: _expected_time(each, sensitivity))[:_TIMED]


def _expected_time(trial: TrialEntry, sensitivity: Sequence[SensitivityEntry]) -> float:
    """Time relative to no quantised block, as if the savings of single blocks added up."""
    return 1 - sum(1 - 1 / each.speed for each in sensitivity if each.block in trial.blocks)
