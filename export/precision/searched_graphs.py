"""Quantised graphs whose blocks were selected by measured recall: `--precision auto`."""

import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from geodtr.export.backends.base import Builder
from geodtr.export.precision.agreement import EngineDisagrees
from geodtr.export.precision.search import Found, search
from geodtr.export.precision.trial_engines import Workbench
from geodtr.export.precision.write import (
    CalibrationPlan,
    calibrated,
    first_images,
    quantisers,
    write_chosen,
)
from geodtr.export.speed import BATCH
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import QuantisationEntry, SearchEntry
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.progress import Track, untracked
from geodtr.training.data.pair_set import PairSet

TOLERANCE = 0.5
"""Points of R@1."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What ranges and recall are measured on, how many points R@1 may fall, and the batch size that choices are timed
    with. `journal` keeps what was measured: a search that was stopped continues from it. The calibration's `notice`
    is called when it cannot. `accept_undecided`: choose by the measured drop where the pairs do not decide.
    """

    calibration: CalibrationPlan
    pairs: PairSet
    journal: Path
    tolerance: float = TOLERANCE
    speed_batch: int = BATCH
    accept_undecided: bool = False


def write_searched(
    exported: Bundle,
    plan: SearchPlan,
    builder: Builder,
    folder: Path,
    scratch: Path,
    *,
    track: Track = untracked,
) -> tuple[QuantisationEntry, Builder]:
    """Calibrate the float32 bundle `exported`, search, and write both branches' graphs into `folder`; trial engines are
    built in `scratch`.

    If an engine does not match its graph, and `builder` has another way, the search starts over with that. Returns the
    builder of the final search. Raises UndecidedSearch, NoChoiceHolds, and the errors of calibrating and building.
    """
    calibration = calibrated(exported, plan.calibration, track=track)
    by_branch = quantisers(exported, calibration.ranges, "mixed", builder.dialect)
    data_sha256 = plan.pairs.fingerprint()

    def searched(bench: Workbench, builder: Builder) -> Found:
        key = (
            calibration.ranges,
            builder.check("mixed"),
            builder.dialect,
            data_sha256,
            plan.tolerance,
            plan.speed_batch,
        )
        return search(
            bench,
            plan.tolerance,
            sha256(msgspec.json.encode(key)).hexdigest(),
            plan.journal,
            accept_undecided=plan.accept_undecided,
            notice=plan.calibration.notice,
            track=track,
        )

    with tempfile.TemporaryDirectory(dir=scratch) as tried:
        bench = Workbench(
            exported, by_branch, builder, "mixed", plan.pairs, Path(tried), batch=plan.speed_batch, track=track
        )
        try:
            result = searched(bench, builder)
        except EngineDisagrees as fault:
            other = builder.another_way(str(fault))
            if other is None:
                raise
            builder = other
            bench.build_by(builder)
            result = searched(bench, builder)
        selected = {branch: frozenset(bench.operators(branch, frozenset(result.chosen))) for branch in BRANCHES}
    search_entry = _entry(result, plan, data_sha256, builder)
    sample = first_images(exported, calibration)
    entry = write_chosen(exported, by_branch, selected, calibration, sample, folder, search=search_entry, track=track)
    return entry, builder


def _entry(result: Found, plan: SearchPlan, data_sha256: str, builder: Builder) -> SearchEntry:
    return SearchEntry(
        tolerance=plan.tolerance,
        data=plan.pairs.name,
        data_sha256=data_sha256,
        machine=builder.check("mixed").machine or this_cpu(),
        batch=plan.speed_batch,
        chosen=result.trial,
        sensitivity=result.sensitivity,
        trials=result.trials,
        accepted=result.accepted,
    )
