"""Building engines from Python: one request, one bundle."""

from collections.abc import Callable

from geodtr.export.backends.base import ignore_warning
from geodtr.export.backends.options import BackendOptions
from geodtr.export.backends.registry import make_builder
from geodtr.export.build.auto import build_fastest, recompile_fastest
from geodtr.export.build.command_line import command_line
from geodtr.export.build.compact import Compact
from geodtr.export.build.projected import ProjectionPlan
from geodtr.export.build.request import Auto, BuildRequest, FastestBackend, Plan, Quantized
from geodtr.export.build.single import build_single, check_builder, recompile_single
from geodtr.export.calibration_pool import open_pool
from geodtr.export.precision.searched_graphs import SearchPlan
from geodtr.export.precision.write import CalibrationPlan
from geodtr.export.speed import BATCH
from geodtr.runtime.arguments import check_argument
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.files import check_new_folder, real_path
from geodtr.runtime.installation import naming_extras
from geodtr.runtime.progress import Track, untracked
from geodtr.training.data.pair_set import PairSet, describe_skipped
from geodtr.training.data.spec import read_test_set, read_training_set


@naming_extras()
def build_engine(
    request: BuildRequest, *, track: Track = untracked, warn: Callable[[str], None] = ignore_warning
) -> Bundle:
    """Compile both branches of a model into a bundle of engines, whole or not at all.

    Every engine is checked before the bundle is kept: its descriptors match its graph's, it computes in the requested
    precision, and it gives the same rows in every batch.

    Parameters
    ----------
    request
        What to build, of what, for which backend.
    track
        Receives the progress; see `geodtr.runtime.progress`.
    warn
        Called with what the caller should know and need not mend; by default ignored.

    Returns
    -------
    Bundle
        The new bundle in `request.out`, opened and verified.

    Raises
    ------
    ConfigError
        The backend cannot run the precision here, or runs no graphs of the INT8 dialect; or the model's descriptors
        cannot be projected to the size of `Compact`.
    MissingDependency
        The backend is not installed, or has no GPU; or the source is a checkpoint, without the extra `train`.
    CheckpointError, BundleError
        The source cannot be read, or a bundle holds other graphs than are needed.
    DataError
        Images or pairs cannot be read, or the pairs are too few for `Compact`.
    OutputExists
        `request.out` is taken.
    BuildError, GraphError
        What was compiled is not right; nothing was written.
    GateNotMet
        `require_faster`, and a branch is not faster than in float32.
    Undecided
        `Auto`, and the pairs are too few to decide.

    Examples
    --------
    >>> from pathlib import Path
    >>> from geodtr import BuildRequest, Float, build_engine
    >>> request = BuildRequest(Path("model.safetensors"), Path("engine"), plan=Float("fp16"))
    >>> build_engine(request).manifest.precision
    'fp16'
    """
    check_argument("request", request, BuildRequest)
    check_new_folder(request.out)
    if isinstance(request.backend, FastestBackend):
        _build_fastest(request, track, warn)
    else:
        _build_single(request, request.backend, track, warn)
    return open_bundle(request.out)


def _build_single(request: BuildRequest, backend: BackendOptions, track: Track, warn: Callable[[str], None]) -> None:
    precision, builder = request.precision, make_builder(backend, request.dialect, notice=warn)
    if precision is None:
        recompile_single(request.source, request.out, builder, command=command_line(request), track=track)
        return
    installed = check_builder(builder, precision, request.require_faster)
    build_single(
        request.source,
        request.out,
        precision,
        builder,
        installed,
        _search_plan(request, warn) if isinstance(request.plan, Auto) else _calibration_plan(request.plan, warn),
        projection=_projection_plan(request.compact, warn),
        command=command_line(request),
        require_faster=request.require_faster,
        speed_batch=request.speed_batch or BATCH,
        track=track,
    )


def _build_fastest(request: BuildRequest, track: Track, warn: Callable[[str], None]) -> None:
    precision, batch = request.precision, request.speed_batch or BATCH
    if precision is None:
        recompile_fastest(
            request.source,
            request.out,
            request.dialect,
            command=command_line(request),
            speed_batch=batch,
            notice=warn,
            track=track,
        )
        return
    build_fastest(
        request.source,
        request.out,
        precision,
        request.dialect,
        _calibration_plan(request.plan, warn),
        projection=_projection_plan(request.compact, warn),
        command=command_line(request),
        require_faster=request.require_faster,
        speed_batch=batch,
        notice=warn,
        track=track,
    )


def _calibration_plan(plan: Plan, warn: Callable[[str], None]) -> CalibrationPlan | None:
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


def _search_plan(request: BuildRequest, warn: Callable[[str], None]) -> SearchPlan:
    """What a search measures recall on, too."""
    plan, calibration = request.plan, _calibration_plan(request.plan, warn)
    assert isinstance(plan, Auto) and calibration is not None
    pairs = _pairs(plan.recall_on, read_test_set, warn)
    out = real_path(request.out)
    journal = out.with_name(f"{out.name}.search.json")
    return SearchPlan(calibration, pairs, journal, plan.tolerance, request.speed_batch or BATCH, plan.accept_undecided)


def _projection_plan(compact: Compact | None, warn: Callable[[str], None]) -> ProjectionPlan | None:
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
