"""Commands about engines: export, build, compare, inspect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from geodtr.export.cli.precision_tables import against_fp32, draw_search, int8_share, show_search

if TYPE_CHECKING:
    from geodtr.export.parity import ParityReport
    from geodtr.runtime.recall import Recall


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint file.", show_default=False)],
    out: Annotated[Path, out_option("Bundle folder to write; must be new or empty.")],
    raw_tiles: Annotated[
        int | None,
        typer.Option(
            "--raw-tiles",
            metavar="SIDE",
            help="Polar transform in the graph, of tiles so large.",
            show_default="no",
        ),
    ] = None,
) -> None:
    """Export both branches to float32 ONNX, compared with PyTorch, into a bundle that engines are built from."""
    from geodtr.export.engine_builder import export_checkpoint

    bundle = export_checkpoint(checkpoint, out, raw_tiles=raw_tiles, track=track)
    messages.print(f"Wrote {bundle.path}: {megabytes(bundle.bytes)} MB")


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

    The allowed drop in R@1 is 0 for fp32, 0.1 points for fp16, 0.5 points for int8 and fp8, and for auto what its
    search was allowed; or one query where the set is so small that one weighs more. The verdict is written into each
    bundle's manifest.
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
        if not entry.smallest_cosine >= entry.least_cosine:
            found += f"; smallest cosine {entry.smallest_cosine:.5f}, at least {entry.least_cosine} is asked"
        output.print(f"{entry.name}: {found}:", verdict(entry.passed))
    for entry in report.candidates:
        if entry.times_fp32 is not None and entry.times_fp32.median < 1:
            warn(f"{entry.name} is slower here than {report.fp32}: {times(entry.times_fp32)}.")
    warn_of_collapse(report.reference, report.reference_recall)


def inspect(
    bundle: BundlePath,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="PNG", help="Draw the search of --precision auto again.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle holds: branches, precision, backend, hashes, calibration, search, measured parity."""
    from geodtr.export.pictures import check_pictures
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.names import BRANCHES

    check_pictures(picture)
    manifest = open_bundle(bundle).manifest
    if picture is not None:
        draw_search(manifest.quantisation, picture)
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
    for branch in BRANCHES:
        compiled = manifest.engine(branch).compiled
        if compiled is not None and compiled.layers:
            told = ", ".join(f"{count} in {name}" for name, count in compiled.layers.items())
            output.print(f"{branch}: the backend computes layers {told}")
        if compiled is not None and compiled.wider:
            output.print(f"{branch}: computed in a wider type than the graph's: {', '.join(compiled.wider)}")
    if manifest.quantisation is not None:
        calibration = manifest.quantisation.calibration
        output.print(
            f"calibrated on {calibration.images} images a branch of {calibration.data}, {calibration.choice}, by "
            f"{calibration.method}"
        )
        output.print(int8_share(manifest.quantisation))
        for name, share in manifest.quantisation.argmax_flips.items():
            output.print(f"{name}: another channel wins the saliency's arg-max in {percent(share)} % of positions")
        if manifest.quantisation.search is not None:
            show_search(manifest.quantisation.search, manifest.quantisation.rest)
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
    app.command()(parity)
    app.command()(inspect)
