"""From float32 graphs to typed ones: precision is a property of the ONNX file, and of nothing else."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from geodtr.calibration.ranges import Calibrated, RangeOptions, Ranges, calibrate
from geodtr.calibration.select import Pool
from geodtr.export.backends.base import ignore_warning
from geodtr.export.graph.checks import check_for_tensorrt, check_fp16, check_quantised
from geodtr.export.graph.discrete import argmax_flips
from geodtr.export.precision.cosine_selection import KEEP_COSINE, Quantiser, keep_cosine
from geodtr.export.precision.fp8 import Fp8Quantiser
from geodtr.export.precision.fp16 import check_fits, to_fp16
from geodtr.export.precision.int8 import Int8Quantiser
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.embed.pipeline import in_batches
from geodtr.runtime.files import hash_files
from geodtr.runtime.manifest import CalibrationEntry, QuantisationEntry, SearchEntry
from geodtr.runtime.names import BRANCHES, Branch, Dialect, Precision
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Images

_SAMPLE = 16


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What ranges are measured on, and how. `file` keeps them from one build to the next; `notice` hears why it could
    not.

    `keep_cosine`: how closely the quantised descriptors of the first images must follow the float32 ones;
    by default as the precision has it.
    """

    pool: Pool
    options: RangeOptions = field(default_factory=RangeOptions)
    file: Path | None = None
    keep_cosine: float | None = None
    notice: Callable[[str], None] = ignore_warning


def calibrated(exported: Bundle, plan: CalibrationPlan, *, track: Track = untracked) -> Calibrated:
    """Calibrate the float32 bundle `exported` as planned. A notice reports if it replaces ranges from other settings,
    and if the model was not trained on such images.
    """
    held = plan.file is not None and plan.file.exists()
    calibration = calibrate(exported, plan.pool, plan.options, plan.file, track=track)
    if held and calibration.reason is not None:
        plan.notice(f"The ranges in {plan.file} were measured again, because {calibration.reason}.")
    if calibration.doubt is not None:
        plan.notice(calibration.doubt)
    return calibration


def write_typed(exported: Bundle, precision: Precision, folder: Path, *, track: Track = untracked) -> None:
    """Write both branches' graphs of the float32 bundle `exported` into `folder`, in fp32 or fp16."""
    import onnx

    for branch in track(BRANCHES, f"Writing {precision} graphs", len(BRANCHES)):
        file = exported.manifest.engine(branch).file
        graph = onnx.load(str(exported.path / file))
        if precision == "fp16":
            graph = to_fp16(graph)
            check_fp16(graph)
        onnx.save(graph, str(folder / file))


def write_quantised(
    exported: Bundle,
    plan: CalibrationPlan,
    precision: Precision,
    dialect: Dialect,
    folder: Path,
    *,
    track: Track = untracked,
) -> QuantisationEntry:
    """Calibrate the float32 bundle `exported`, then write both branches' quantised graphs into `folder`, with as many
    quantised operators as preserve the descriptors of the first images.
    """
    calibration = calibrated(exported, plan, track=track)
    by_branch = quantisers(exported, calibration.ranges, precision, dialect)
    sample = first_images(exported, calibration)
    smallest = KEEP_COSINE[precision] if plan.keep_cosine is None else plan.keep_cosine
    selected = {
        branch: keep_cosine(by_branch[branch], sample[branch], smallest, what=f"{branch} operators", track=track)
        for branch in BRANCHES
    }
    return write_chosen(
        exported, by_branch, selected, calibration, sample, folder, smallest_cosine=smallest, track=track
    )


def quantisers(exported: Bundle, ranges: Ranges, precision: Precision, dialect: Dialect) -> dict[Branch, Quantiser]:
    """A quantiser for each branch, which writes its graph with any choice of quantised operators.

    Raises GraphError when a tensor that is not quantised would overflow.
    """
    import onnx

    by_branch: dict[Branch, Quantiser] = {}
    for branch in BRANCHES:
        graph = onnx.load(str(exported.path / exported.manifest.engine(branch).file))
        activations = ranges[branch].activations
        by_branch[branch] = (
            Fp8Quantiser(graph, activations) if precision == "fp8" else Int8Quantiser(graph, activations, dialect)
        )
        if by_branch[branch].rest == "fp16":
            check_fits(activations.ranges)
    return by_branch


def write_chosen(
    exported: Bundle,
    by_branch: Mapping[Branch, Quantiser],
    selected: Mapping[Branch, Collection[str]],
    calibration: Calibrated,
    sample: Mapping[Branch, Images],
    folder: Path,
    *,
    smallest_cosine: float | None = None,
    search: SearchEntry | None = None,
    track: Track = untracked,
) -> QuantisationEntry:
    """Write each branch's graph with the `selected` operators quantised, by a cosine or by a search, and check it.
    Arg-max positions that flip are counted on the images of `sample`.
    """
    import onnx

    flips = dict[str, float]()
    for branch in track(BRANCHES, "Writing quantised graphs", len(BRANCHES)):
        graph = by_branch[branch].quantise(selected[branch])
        check_quantised(graph, selected[branch])
        if by_branch[branch].dialect == "tensorrt":
            check_for_tensorrt(graph)
        if by_branch[branch].rest == "fp16":
            check_fp16(graph)
        onnx.save(graph, str(folder / exported.manifest.engine(branch).file))
        share = argmax_flips(by_branch[branch].graph, graph, sample[branch], by_branch[branch].optimisation)
        if share is not None:
            flips[branch] = share
    names = [(branch, operator.name) for branch in BRANCHES for operator in by_branch[branch].operators]
    return QuantisationEntry(
        dialect=by_branch["ground"].dialect,
        calibration=_calibration_entry(calibration),
        operators=len(names),
        rest=by_branch["ground"].rest,
        kept_float=tuple(f"{branch}/{name}" for branch, name in names if name not in selected[branch]),
        keep_cosine=smallest_cosine,
        search=search,
        argmax_flips=flips,
    )


def first_images(exported: Bundle, calibration: Calibrated) -> dict[Branch, Images]:
    """The first calibration images, preprocessed, uint8 [N, H, W, 3]."""
    return {
        branch: next(
            in_batches(
                calibration.images[branch][:_SAMPLE],
                partial(calibration.pool.load, exported.manifest.engine(branch).spec),
                _SAMPLE,
            )
        )
        for branch in BRANCHES
    }


def _calibration_entry(calibration: Calibrated) -> CalibrationEntry:
    """The manifest's entry for a calibration."""
    options = calibration.ranges.options
    method = f"percentile {options.percentile}" if options.method == "percentile" else options.method
    return CalibrationEntry(
        data=calibration.ranges.data,
        images=len(calibration.images["ground"]),
        ground_sha256=hash_files(calibration.images["ground"]),
        aerial_sha256=hash_files(calibration.images["aerial"]),
        choice=options.choice,
        seed=options.seed,
        method=method,
    )
