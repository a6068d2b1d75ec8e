"""Commands about engines: export, build, compare, inspect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodtr.export.cli.console import megabytes, messages, output, percent, show_json, table, track
from geodtr.export.cli.options import AsJson, BundlePath, Spec, out_option
from geodtr.runtime.names import Backend, Precision

if TYPE_CHECKING:
    from geodtr.export.parity import ParityReport
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
    precision: Annotated[Precision, typer.Option("--precision", help="A property of the file, not a hint.")] = "fp32",
    backend: Annotated[Backend, typer.Option("--backend", help="What runs the engine.")] = "onnxruntime",
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", metavar="SPEC", help="Images that INT8 ranges are measured on.", show_default=False
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="How many of them, drawn with a fixed seed.")] = 200,
    keep_cosine: Annotated[
        float,
        typer.Option("--keep-cosine", min=0, max=1, help="INT8: smallest cosine with float32 on calibration images."),
    ] = 0.993,
) -> None:
    """Compile both branches into a bundle of engines.

    INT8 quantises convolutions. One that would turn a calibration image's descriptor too far stays in float32, and
    `inspect` names it.
    """
    del backend  # one today; the option is there so that a command line says what it means
    from geodtr.export.engine_builder import build_engine as run_build
    from geodtr.training.data.spec import read_spec

    calibration_set = read_spec(calibration, default_split="train") if calibration else None
    bundle = run_build(
        source,
        out,
        precision=precision,
        calibration=calibration_set,
        calibration_images=images,
        keep_cosine=keep_cosine,
        track=track,
    )
    messages.print(f"Wrote {bundle.path}: {precision}, {megabytes(bundle.bytes)} MB")


def parity(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="A checkpoint or a bundle.", show_default=False)
    ],
    candidates: Annotated[
        list[Path], typer.Argument(metavar="CANDIDATE...", help="Bundles to judge.", show_default=False)
    ],
    data: Spec,
    as_json: AsJson = False,
) -> None:
    """Prove that engines find what the reference model finds; exit 1 when one does not.

    The allowed drop in R@1 is 0 for fp32, 0.1 points for fp16 and 0.5 points for int8, or one query where the set is so
    small that one weighs more. The verdict is written into each bundle's manifest.
    """
    from geodtr.export.model import open_model
    from geodtr.export.parity import compare, record
    from geodtr.training.data.spec import read_spec

    pair_set = read_spec(data, default_split="val")
    report = compare(open_model(reference), [open_model(path) for path in candidates], pair_set, track=track)
    for path, candidate in zip(candidates, report.candidates, strict=True):
        record(report, candidate, path)
    if as_json:
        show_json({"passed": report.passed, "report": report})
    else:
        show_parity(report)
    raise typer.Exit(0 if report.passed else 1)


def show_parity(report: "ParityReport", pixels: "Recall | None" = None) -> None:
    """The parity table, the verdict below it; `pixels` is the raw-pixel baseline's recall."""
    columns = ("", "R@1", "R@5", "R@10", "R@1%", "mean cos", "min cos", "moved", "img/s", "MB", "")
    rows = table(f"Parity on {report.reference_recall.queries} pairs of {report.data}", columns)

    def recalls(of: "Recall") -> list[str]:
        return [percent(share) for share in (of.at_1, of.at_5, of.at_10, of.at_1_percent)]

    if pixels is not None:
        rows.add_row("raw pixels", *recalls(pixels), *[""] * 6, style="dim")
    speed, size = report.reference_speed.median, report.reference_bytes
    rows.add_row(report.reference, *recalls(report.reference_recall), "", "", "", f"{speed:.0f}", megabytes(size), "")
    for entry in report.candidates:
        rows.add_row(
            entry.name,
            *recalls(entry.recall),
            f"{entry.mean_cosine:.5f}",
            f"{entry.smallest_cosine:.5f}",
            str(entry.changed),
            f"{entry.speed.median:.0f}",
            megabytes(entry.bytes),
            "[green]pass[/]" if entry.passed else "[red]FAIL[/]",
        )
    output.print(rows)
    output.print(
        "cos: cosine of an engine's descriptors with the reference's; moved: queries whose rank changed", style="dim"
    )
    for entry in report.candidates:
        verdict = "[green]passed[/]" if entry.passed else "[red]failed[/]"
        found = f"{-entry.lost:+d} of {entry.recall.queries} queries at rank 1, may lose {entry.allowed_lost}"
        output.print(f"{entry.name}: {found}: {verdict}")


def inspect(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Show what a bundle holds: branches, precision, backend, hashes, calibration, measured parity."""
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.names import BRANCHES

    manifest = open_bundle(bundle).manifest
    if as_json:
        show_json(manifest)
        return
    output.print(f"[bold]{bundle}[/]: {manifest.backend.name} {manifest.backend.version}, {manifest.precision}")
    output.print(f"embedding id {manifest.embedding_id}, from a checkpoint {manifest.source.origin}")
    rows = table("Engines (hashes verified)", ("branch", "input", "descriptor", "MB", "SHA-256"))
    for branch in BRANCHES:
        entry = manifest.engine(branch)
        how = entry.spec.preprocessing
        size = f"{how.height}x{how.width}{' polar' if how.polar else ''}"
        rows.add_row(branch, size, str(entry.spec.descriptor_size), megabytes(entry.bytes), entry.sha256[:16])
    output.print(rows)
    if manifest.calibration is not None:
        calibration = manifest.calibration
        output.print(f"calibrated on {calibration.images} images a branch of {calibration.data} ({calibration.method})")
        output.print(
            f"for cosine {calibration.keep_cosine}, {len(calibration.kept_float)} convolutions stay in float32 "
            "(--json names them)"
        )
    if not manifest.parity:
        output.print("parity: not measured; geodtr-export parity REFERENCE BUNDLE --data SPEC")
    for measured in manifest.parity:
        output.print(
            f"parity on {measured.pairs} pairs of {measured.data}: R@1 {percent(measured.at_1)} "
            f"(reference {percent(measured.reference_at_1)}), smallest cosine {measured.smallest_cosine:.5f}: "
            f"{'[green]passed[/]' if measured.passed else '[red]failed[/]'}"
        )


def add_to(app: typer.Typer) -> None:
    app.command()(export)
    app.command("build-engine")(build_engine)
    app.command()(parity)
    app.command()(inspect)
