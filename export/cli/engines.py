"""Commands about engines: export, build, compare, inspect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.export.cli.calibration import Images, MethodOption, Percentile, Select, open_pool
from geodtr.export.cli.console import (
    RECALL_COLUMNS,
    megabytes,
    messages,
    output,
    percent,
    recall_cells,
    report_skipped,
    show_json,
    table,
    times,
    track,
    verdict,
    warn,
    warn_of_collapse,
)
from geodtr.export.cli.options import AsJson, BundlePath, Limit, Spec, out_option
from geodtr.runtime.names import Backend, Dialect, PrecisionAsked, Provider

if TYPE_CHECKING:
    from geodtr.export.parity import ParityReport
    from geodtr.runtime.manifest import QuantisationEntry, SearchEntry, SpeedEntry
    from geodtr.runtime.recall import Recall


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint file.", show_default=False)],
    out: Annotated[Path, out_option("Bundle folder to write; must be new or empty.")],
) -> None:
    """Export both branches to float32 ONNX, compared with PyTorch, into a bundle that engines are built from."""
    from geodtr.export.engine_builder import export_checkpoint

    bundle = export_checkpoint(checkpoint, out, track=track)
    messages.print(f"Wrote {bundle.path}: {megabytes(bundle.bytes)} MB")


def build_engine(
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
    backend: Annotated[Backend, typer.Option("--backend", help="What runs the engine.")] = "onnxruntime",
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
        float, typer.Option("--tolerance", min=0, max=100, help="auto: points of R@1 that may go.")
    ] = 0.5,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="PNG", help="auto: blocks and choices as a picture.", show_default=False),
    ] = None,
    require_faster: Annotated[
        bool,
        typer.Option(
            "--require-faster",
            help="Measure beside fp32 of the same backend; write nothing and exit 1 when a branch is not faster.",
        ),
    ] = False,
) -> None:
    """Compile both branches into a bundle of engines.

    INT8 and FP8 quantise convolutions and large products. One that would turn a calibration image's descriptor too far
    stays in float32, and `inspect` names it. With `auto`, blocks are chosen by the recall measured on --recall-on; a
    search that was stopped goes on from OUT.search.json.
    """
    from geodtr.calibration.ranges import RangeOptions
    from geodtr.export.build.builder import BuildOptions, make_builder
    from geodtr.export.engine_builder import build_engine as run_build
    from geodtr.export.engine_builder import recompile
    from geodtr.export.pictures import check_pictures
    from geodtr.export.precision import CalibrationPlan
    from geodtr.export.searched_precision import SearchPlan
    from geodtr.training.data.spec import read_test_set

    check_pictures(picture)
    builder = make_builder(backend, BuildOptions(provider=provider, dialect=dialect))
    if precision == "same":
        if calibration or require_faster:
            raise typer.BadParameter(
                "--precision same takes graphs as they are: no --calibration, no --require-faster."
            )
        bundle = recompile(source, out, builder=builder, track=track)
        messages.print(f"Wrote {bundle.path}: {bundle.manifest.precision}, {megabytes(bundle.bytes)} MB")
        return
    search = None
    if precision == "auto" and recall_on is not None:
        pairs = read_test_set(recall_on)
        report_skipped(pairs.name, pairs.skipped)
        search = SearchPlan(pairs, out.with_name(f"{out.name}.search.json"), tolerance)
    plan = None
    if calibration:
        plan = CalibrationPlan(
            open_pool(calibration),
            RangeOptions(images=images, choice=select, method=method, percentile=percentile),
            file=ranges,
            keep_cosine=keep_cosine,
        )
    bundle = run_build(
        source,
        out,
        precision="mixed" if precision == "auto" else precision,
        builder=builder,
        calibration=plan,
        search=search,
        require_faster=require_faster,
        track=track,
    )
    made = bundle.manifest.quantisation
    if made is not None and made.search is not None:
        show_search(made.search)
        if picture is not None:
            from geodtr.export.precision_picture import save_picture
            from geodtr.runtime.files import new_file

            with new_file(picture) as file:
                save_picture(made.search, file)
    messages.print(
        f"Wrote {bundle.path}: {bundle.manifest.precision}, {megabytes(bundle.bytes)} MB"
        f"{', ' + int8_share(made) if made else ''}"
    )
    if bundle.manifest.speed is not None:
        messages.print(against_fp32(bundle.manifest.speed))


def against_fp32(speed: "SpeedEntry") -> str:
    """How fast a bundle is beside float32, in words."""
    each = f"ground {times(speed.ground)}, aerial {times(speed.aerial)}"
    return f"speed against fp32 of the same backend, where it was built, batch {speed.batch}: {each}"


def int8_share(made: "QuantisationEntry") -> str:
    """How much of an INT8 bundle is INT8, in words."""
    kept = len(made.kept_float)
    share = f"{made.operators - kept} of {made.operators} operators quantised ({made.dialect})"
    why = f"keep cosine {made.keep_cosine}" if made.search is None else "keep R@1"
    return f"{share}, the others float32 to {why} (--json names them)" if kept else share


def show_search(search: "SearchEntry") -> None:
    """Blocks alone, and the choices that were timed or lost too much."""
    rows = table("Blocks alone in 8 bits", ("block", "operators", "mean cos", "lost", "gained", "speed", ""))
    for entry in search.sensitivity:
        kept = "int8" if entry.block in search.chosen.blocks else "float32"
        speed = f"{entry.speed:.2f} x"
        cells = (f"{entry.mean_cosine:.5f}", str(entry.lost), str(entry.gained), speed, kept)
        rows.add_row(entry.block, str(entry.operators), *cells)
    output.print(rows)
    title = f"Choices of blocks on {search.chosen.queries} pairs of {search.data}, tolerance {search.tolerance} points"
    rows = table(title, ("blocks", "lost", "gained", "drop in R@1, points", "speed", ""))
    for trial in sorted(search.trials, key=lambda each: -(each.speed or 0)):
        drop = 100 * (trial.lost - trial.gained) / trial.queries
        interval = f"{drop:+.2f} ({100 * trial.low:+.2f} to {100 * trial.high:+.2f})"
        speed = "" if trial.speed is None else f"{trial.speed:.2f} x"
        note = "chosen" if trial.blocks == search.chosen.blocks else "" if trial.complete else "given up early"
        rows.add_row(str(len(trial.blocks)), str(trial.lost), str(trial.gained), interval, speed, note)
    output.print(rows)


def parity(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="A checkpoint or a bundle.", show_default=False)
    ],
    candidates: Annotated[
        list[Path], typer.Argument(metavar="CANDIDATE...", help="Bundles to judge.", show_default=False)
    ],
    data: Spec,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Prove that engines find what the reference model finds; exit 1 when one does not.

    The allowed drop in R@1 is 0 for fp32, 0.1 points for fp16 and 0.5 points for int8, or one query where the set is so
    small that one weighs more. The verdict is written into each bundle's manifest.
    """
    from geodtr.export.model import open_model
    from geodtr.export.parity import compare, record
    from geodtr.runtime.bundle import open_bundle
    from geodtr.training.data.spec import read_test_set

    pair_set = read_test_set(data, limit)
    bundles = [open_bundle(path) for path in candidates]
    report = compare(open_model(reference), [open_model(bundle.path) for bundle in bundles], pair_set, track=track)
    report_skipped(report.data, report.skipped)
    if as_json:
        show_json(report)
    else:
        show_parity(report)
    for bundle, candidate in zip(bundles, report.candidates, strict=True):
        record(report, candidate, bundle.path)
    raise typer.Exit(0 if report.passed else 1)


def show_parity(report: "ParityReport", pixels: "Recall | None" = None) -> None:
    """The parity table, the verdict below it; `pixels` is the raw-pixel baseline's recall."""
    columns = ("", *RECALL_COLUMNS, "mean cos", "min cos", "moved", "img/s", "MB", "")
    rows = table(f"Parity on {report.reference_recall.queries} pairs of {report.data}", columns)

    if pixels is not None:
        rows.add_row("raw pixels", *recall_cells(pixels), *[""] * 6, style="dim")
    speed, size = report.reference_speed.median, report.reference_bytes
    rows.add_row(
        report.reference, *recall_cells(report.reference_recall), "", "", "", f"{speed:.0f}", megabytes(size), ""
    )
    for entry in report.candidates:
        rows.add_row(
            entry.name,
            *recall_cells(entry.recall),
            f"{entry.mean_cosine:.5f}",
            f"{entry.smallest_cosine:.5f}",
            str(entry.changed),
            f"{entry.speed.median:.0f}",
            megabytes(entry.bytes),
            verdict(entry.passed),
        )
    output.print(rows)
    output.print(
        "cos: cosine of an engine's descriptors with the reference's; moved: queries whose rank changed", style="dim"
    )
    for entry in report.candidates:
        found = f"{-entry.lost:+d} of {entry.recall.queries} queries at rank 1, may lose {entry.allowed_lost}"
        output.print(f"{entry.name}: {found}:", verdict(entry.passed))
    for entry in report.candidates:
        if entry.times_fp32 is not None and entry.times_fp32.median < 1:
            warn(f"{entry.name} is slower here than {report.fp32}: {times(entry.times_fp32)}.")
    warn_of_collapse(report.reference, report.reference_recall)


def inspect(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Show what a bundle holds: branches, precision, backend, hashes, calibration, measured parity."""
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.names import BRANCHES

    manifest = open_bundle(bundle).manifest
    if as_json:
        show_json(manifest)
        return
    output.print(f"{bundle}: {manifest.backend.name} {manifest.backend.version}, {manifest.precision}")
    output.print(f"embedding id {manifest.embedding_id}, from a checkpoint {manifest.source.origin}")
    rows = table("Engines (hashes verified)", ("branch", "input", "descriptor", "MB", "SHA-256"))
    for branch in BRANCHES:
        entry = manifest.engine(branch)
        how = entry.spec.preprocessing
        size = f"{how.height}x{how.width}{' polar' if how.polar else ''}"
        rows.add_row(branch, size, str(entry.spec.descriptor_size), megabytes(entry.bytes), entry.sha256[:16])
    output.print(rows)
    if manifest.quantisation is not None:
        calibration = manifest.quantisation.calibration
        output.print(
            f"calibrated on {calibration.images} images a branch of {calibration.data}, {calibration.choice}, by "
            f"{calibration.method}"
        )
        output.print(int8_share(manifest.quantisation))
        if manifest.quantisation.search is not None:
            show_search(manifest.quantisation.search)
    if manifest.speed is not None:
        output.print(against_fp32(manifest.speed))
    if not manifest.parity:
        output.print("parity: not measured; geodtr-export parity REFERENCE BUNDLE --data SPEC")
    for measured in manifest.parity:
        output.print(
            f"parity with {measured.reference} on {measured.pairs} pairs of {measured.data}: "
            f"R@1 {percent(measured.at_1)} (reference {percent(measured.reference_at_1)}), "
            f"smallest cosine {measured.smallest_cosine:.5f}:",
            verdict(measured.passed),
        )


def add_to(app: typer.Typer) -> None:
    app.command()(export)
    app.command("build-engine")(build_engine)
    app.command()(parity)
    app.command()(inspect)
