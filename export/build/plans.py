"""What a request's plans need, opened: images to calibrate on, pairs to measure recall on or to fit a projection to."""

from collections.abc import Callable

from geodtr.export.build.compact import Compact
from geodtr.export.build.precisions import Auto, Plan, Quantized
from geodtr.export.build.projected import ProjectionPlan
from geodtr.export.build.request import BuildRequest
from geodtr.export.calibration_pool import open_pool
from geodtr.export.precision.searched_graphs import SearchPlan
from geodtr.export.precision.write import CalibrationPlan
from geodtr.export.speed import BATCH
from geodtr.runtime.files import real_path
from geodtr.training.data.pair_set import PairSet, describe_skipped
from geodtr.training.data.spec import read_test_set, read_training_set


def calibration_plan(plan: Plan, warn: Callable[[str], None]) -> CalibrationPlan | None:
    """The images and options for the ranges; None where nothing is quantised."""
    if not isinstance(plan, Quantized | Auto):
        return None
    calibration = plan.calibration
    return CalibrationPlan(
        open_pool(calibration.data, warn),
        calibration.range_options,
        file=calibration.ranges,
        keep_cosine=plan.keep_cosine if isinstance(plan, Quantized) else None,
        notice=warn,
    )


def search_plan(request: BuildRequest, warn: Callable[[str], None]) -> SearchPlan:
    """What a search measures recall on, too."""
    plan, calibration = request.plan, calibration_plan(request.plan, warn)
    assert isinstance(plan, Auto) and calibration is not None
    pairs = _pairs(plan.recall_on, read_test_set, warn)
    out = real_path(request.out)
    journal = out.with_name(f"{out.name}.search.json")
    return SearchPlan(calibration, pairs, journal, plan.tolerance, request.speed_batch or BATCH, plan.accept_undecided)


def projection_plan(compact: Compact | None, warn: Callable[[str], None]) -> ProjectionPlan | None:
    """The pairs that a projection is fitted to; None where descriptors stay as long as they are."""
    if compact is None:
        return None
    return ProjectionPlan(compact.descriptor_size, _pairs(compact.compact_on, read_training_set, warn))


def _pairs(data: str | PairSet, read: Callable[[str], PairSet], warn: Callable[[str], None]) -> PairSet:
    """Opened pairs, or those that a SPEC names, with a warning about the files that cannot be used."""
    if isinstance(data, PairSet):
        return data
    pairs = read(data)
    if pairs.skipped:
        warn(describe_skipped(pairs.name, pairs.skipped))
    return pairs
