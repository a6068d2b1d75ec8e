"""The command that this project exists for: build-engine."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import geodtr.cli.build.tensorrt_options as trt
from geodtr.cli.build.backend_tables import show_choice
from geodtr.cli.build.calibrate import Images, MethodOption, Percentile, Seed, Select, open_pool
from geodtr.cli.build.precision_tables import against_fp32, draw_search, int8_share, show_search
from geodtr.cli.console import (
    megabytes,
    messages,
    report_skipped,
    track,
    warn,
)
from geodtr.cli.options import out_option
from geodtr.runtime.names import BackendAsked, Dialect, Precision, PrecisionAsked, Provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from geodtr.runtime.bundle import Bundle

_QUANTISED: tuple[PrecisionAsked, ...] = ("int8", "fp8", "auto")
_HEARD: dict[str, tuple[PrecisionAsked, ...]] = {
    "dialect": ("int8", "auto", "same"),
    "calibration": _QUANTISED,
    "ranges": _QUANTISED,
    "images": _QUANTISED,
    "select": _QUANTISED,
    "seed": _QUANTISED,
    "method": _QUANTISED,
    "percentile": _QUANTISED,
    "keep_cosine": ("int8", "fp8"),
    "recall_on": ("auto",),
    "tolerance": ("auto",),
    "accept_undecided": ("auto",),
    "picture": ("auto",),
    "speed_batch": ("fp16", *_QUANTISED),
    "require_faster": ("fp32", "fp16", *_QUANTISED),
}
"""Options that not every precision hears."""


def build_engine(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="CKPT|BUNDLE", help="A checkpoint, or an exported bundle.", show_default=False)
    ],
    out: Annotated[Path, out_option("Bundle folder to write; must be new or empty.")],
    precision: Annotated[
        PrecisionAsked,
        typer.Option(
            "--precision",
            help="A property of the file, not a hint; auto: int8 where measured recall allows it; same: recompile a "
            "BUNDLE's own graphs.",
        ),
    ] = "fp32",
    backend: Annotated[
        BackendAsked,
        typer.Option("--backend", help="What runs the engine; auto: build with all that run here, keep the fastest."),
    ] = "onnxruntime",
    provider: Annotated[Provider, typer.Option("--provider", help="What ONNX Runtime computes with.")] = "cpu",
    dialect: Annotated[
        Dialect | None,
        typer.Option("--dialect", help="How the target wants quantised graphs.", show_default="this machine's own"),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            metavar="SPEC|FOLDER",
            help="Images that ranges are measured on: a data set, or a folder with ground/ and aerial/.",
            show_default=False,
        ),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option(
            "--ranges",
            help="File that keeps the ranges: reused when all matches, else measured anew.",
            show_default=False,
        ),
    ] = None,
    images: Images = 200,
    select: Select = "random",
    seed: Seed = 0,
    method: MethodOption = "minmax",
    percentile: Percentile = 99.99,
    keep_cosine: Annotated[
        float | None,
        typer.Option(
            "--keep-cosine",
            min=0,
            max=1,
            help="Quantised: smallest cosine with float32, on 16 of them.",
            show_default="int8 0.993, fp8 0.98",
        ),
    ] = None,
    recall_on: Annotated[
        str | None,
        typer.Option("--recall-on", metavar="SPEC", help="auto: pairs that recall is measured on.", show_default=False),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=100, help="auto: points by which R@1 may fall.")
    ] = 0.5,
    accept_undecided: Annotated[
        bool,
        typer.Option(
            "--accept-undecided",
            help="auto: choose by the measured drop where the pairs of --recall-on are too few to decide.",
        ),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="PNG", help="auto: blocks and choices as a picture.", show_default=False),
    ] = None,
    min_batch: trt.MinBatch = None,
    opt_batch: trt.OptBatch = None,
    max_batch: trt.MaxBatch = None,
    workspace: trt.Workspace = None,
    optimisation_level: trt.OptimisationLevel = None,
    version_compatible: trt.VersionCompatible = False,
    hardware: trt.OnHardware = "same-gpu",
    dla: trt.Dla = None,
    strip: trt.Strip = False,
    refittable: trt.Refittable = False,
    refit_from: trt.RefitFrom = None,
    expose_reductions: trt.ExposeReductions = False,
    compute_capability: trt.ComputeCapability = None,
    require_faster: Annotated[
        bool,
        typer.Option(
            "--require-faster",
            help="Measure beside fp32 of the same backend; write nothing and exit 1 when a branch is not faster.",
        ),
    ] = False,
    speed_batch: Annotated[
        int,
        typer.Option("--speed-batch", min=1, help="auto, --require-faster: batch size when engines are timed."),
    ] = 1,
) -> None:
    """Compile both branches into a bundle of engines.

    INT8 and FP8 quantise convolutions and large products. One that would turn a calibration image's descriptor too far
    stays as the rest is, and `inspect` names it. With `--precision auto`, blocks are chosen by the recall measured on
    --recall-on; a search that was stopped goes on from OUT.search.json. With `--backend auto`, the engines of every
    backend that passes its checks are timed side by side; `inspect` and `bench` show the table.
    """
    from geodtr.calibration.ranges import RangeOptions
    from geodtr.export.backends.registry import BuildOptions, make_builder
    from geodtr.export.backends.tensorrt.options import TensorRtOptions
    from geodtr.export.build.auto import build_fastest, recompile_fastest
    from geodtr.export.build.candidates import check_can_choose
    from geodtr.export.build.engine import build_engine as build_one
    from geodtr.export.build.engine import recompile
    from geodtr.export.model import check_source
    from geodtr.export.plots.files import check_pictures
    from geodtr.export.precision.searched_graphs import SearchPlan
    from geodtr.export.precision.write import CalibrationPlan
    from geodtr.training.data.spec import read_test_set

    _check_heard(context, precision, backend, require_faster)
    check_pictures(picture)
    check_source(source)
    tensorrt = TensorRtOptions(
        min_batch=min_batch,
        opt_batch=opt_batch,
        max_batch=max_batch,
        workspace=workspace,
        optimisation_level=optimisation_level,
        version_compatible=version_compatible,
        hardware=hardware,
        dla_core=dla,
        strip=strip,
        refittable=refittable,
        refit_from=refit_from,
        expose_reductions=expose_reductions,
        compute_capabilities=tuple(compute_capability or ()),
    )
    options = BuildOptions(provider=provider, dialect=dialect, tensorrt=tensorrt if tensorrt.asked else None)
    wanted: Precision | None = "mixed" if precision == "auto" else None if precision == "same" else precision
    build: Callable[..., Bundle]
    if backend == "auto":
        check_can_choose(wanted, options)
        build = partial(build_fastest, options=options, notice=warn)
        compile_again = partial(recompile_fastest, options=options, speed_batch=speed_batch, notice=warn)
    else:
        builder = make_builder(backend, options, notice=warn)
        build, compile_again = partial(build_one, builder=builder), partial(recompile, builder=builder)
    if wanted is None:
        _report(compile_again(source, out, track=track))
        return
    plan: CalibrationPlan | SearchPlan | None = None
    if calibration:
        plan = CalibrationPlan(
            open_pool(calibration),
            RangeOptions(images=images, choice=select, seed=seed, method=method, percentile=percentile),
            file=ranges,
            keep_cosine=keep_cosine,
            notice=warn,
        )
        if recall_on is not None:
            pairs = read_test_set(recall_on)
            report_skipped(pairs.name, pairs.skipped)
            journal = out.resolve().with_name(f"{out.resolve().name}.search.json")
            plan = SearchPlan(plan, pairs, journal, tolerance, speed_batch, accept_undecided)
    bundle = build(
        source,
        out,
        precision=wanted,
        calibration=plan,
        require_faster=require_faster,
        speed_batch=speed_batch,
        track=track,
    )
    made = bundle.manifest.quantisation
    if made is not None and made.search is not None:
        show_search(made.search, made.rest)
        if picture is not None:
            draw_search(made, picture)
    _report(bundle)
    if bundle.manifest.speed is not None:
        messages.print(against_fp32(bundle.manifest.speed))
    elif bundle.manifest.precision in ("fp16", "int8", "fp8"):
        messages.print("Not timed beside fp32: --require-faster does that, bench at any time.")


def _check_heard(
    context: typer.Context, precision: PrecisionAsked, backend: BackendAsked, require_faster: bool
) -> None:
    """Raise BadParameter for options that this precision or backend does not take."""
    given = [name for name in _HEARD if _given(context, name)]
    unheard = [
        f"--{name.replace('_', '-')}"
        for name in given
        if precision not in _HEARD[name] and not (backend == "auto" and name == "speed_batch")
    ]
    if unheard:
        raise typer.BadParameter(
            f"{', '.join(unheard)}: not for --precision {precision}. Leave out what is not for it."
        )
    if "speed_batch" in given and not (require_faster or "auto" in (precision, backend)):
        raise typer.BadParameter("--speed-batch: nothing is timed here. Leave it out, or add --require-faster.")
    if backend == "auto" and _given(context, "provider"):
        raise typer.BadParameter("--provider: for --backend onnxruntime, not auto. Leave it out, or name the backend.")


def _report(bundle: "Bundle") -> None:
    """What was written, with the backends that were tried."""
    manifest = bundle.manifest
    made = manifest.quantisation
    if manifest.backend_choice is not None:
        show_choice(manifest.backend_choice, manifest.backend.runs_by, "Backends, timed side by side")
    messages.print(
        f"Wrote {bundle.path}: {manifest.backend.runs_by}, {manifest.precision}, {megabytes(bundle.bytes)} MB"
        f"{', ' + int8_share(made) if made else ''}"
    )
    if manifest.backend.targets is not None:
        messages.print(f"{manifest.backend.name}: {manifest.backend.targets}", soft_wrap=True)


def _given(context: typer.Context, name: str) -> bool:
    """Whether the user gave an option, if only its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def add_to(app: typer.Typer) -> None:
    app.command("build-engine")(build_engine)
