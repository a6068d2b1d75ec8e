"""Commands about engines: export, inspect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from geodtr.cli.build.backend_tables import show_choice
from geodtr.cli.build.precision_tables import against_fp32, draw_search, int8_share, show_search
from geodtr.cli.console import judged, megabytes, messages, output, percent, show_json, track
from geodtr.cli.options import AsJson, BundlePath, argument, flag, out_option
from geodtr.cli.tables import table
from geodtr.runtime.names import BRANCHES
from geodtr.training.run_files import find_checkpoint

if TYPE_CHECKING:
    from geodtr.runtime.manifest import Manifest, ProjectionEntry, QuantisationEntry


def export(
    checkpoint: Annotated[Path, argument("CKPT", "A checkpoint file.")],
    out: Annotated[Path, out_option("Bundle folder to write; must be new or empty.")],
    raw_tiles: Annotated[
        int | None, flag("--raw-tiles SIDE", "Polar transform in the graph, for tiles of this side.", show_default="no")
    ] = None,
) -> None:
    """Export both branches to float32 ONNX, compared with PyTorch, into a bundle that engines are built from."""
    find_checkpoint(checkpoint)
    from geodtr.export.build.source import export_checkpoint

    bundle = export_checkpoint(checkpoint, out, raw_tiles=raw_tiles, track=track)
    messages.print(f"Wrote {bundle.path}: {megabytes(bundle.bytes)} MB")


def inspect(
    bundle: BundlePath,
    picture: Annotated[Path | None, flag("--picture PNG", "Draw the search of --precision auto again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle holds: branches, precision, backend, hashes, calibration, search, backends tried, parity."""
    from geodtr.export.plots.files import check_pictures
    from geodtr.runtime.bundle import open_bundle
    from geodtr.runtime.images.intake import describe

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
    if manifest.ground.weights is not None:
        shared = manifest.ground.weights
        rows.add_row("both share", "", "", megabytes(shared.bytes), shared.sha256[:16])
    output.print(rows)
    metres = manifest.aerial.spec.preprocessing.imagery.tile_metres
    tiles = "" if metres is None else f"; tiles of {metres:g} m"
    output.print(f"trained on {describe(manifest.ground.spec.preprocessing.imagery)}{tiles}")
    if manifest.projection is not None:
        _show_projection(manifest.projection, manifest.ground.spec.descriptor_size)
    if manifest.command is not None:
        output.print(f"built by: {manifest.command}", soft_wrap=True)
    _show_compiled(manifest)
    if manifest.quantisation is not None:
        _show_quantisation(manifest.quantisation)
    if manifest.speed is not None:
        output.print(against_fp32(manifest.speed))
    if manifest.backend_choice is not None:
        show_choice(manifest.backend_choice, manifest.backend.runs_by, "Backends, timed where the bundle was built")
    if not manifest.parity:
        output.print("parity: not measured; geodtr-export parity REFERENCE BUNDLE --data SPEC")
    for measured in manifest.parity:
        output.print(
            f"parity with {measured.reference} on {measured.pairs} pairs of {measured.data}: "
            f"R@1 {percent(measured.at_1)} (reference {percent(measured.reference_at_1)}), "
            f"smallest cosine {measured.smallest_cosine:.5f}:",
            judged(measured.verdict, accepted=measured.accepted),
        )
        for reason in measured.reasons:
            output.print(f"  {reason}", soft_wrap=True)


def _show_projection(made: "ProjectionEntry", size: int) -> None:
    """What descriptors were projected from, and what that cost on the pairs held out."""
    layer = ", then trained as a linear layer" if made.is_trained else ""
    output.print(
        f"descriptors are projected from {made.full_size} numbers (embedding id {made.of}) to {size}, by "
        f"{made.pairs} pairs of {made.data}: {percent(made.variance)} % of the variance, whitening "
        f"{made.whitening:g}{layer}; each held out once, they give R@1 {percent(made.hits / made.queries)} instead of "
        f"{percent(made.full_hits / made.queries)}",
        soft_wrap=True,
    )


def _show_compiled(manifest: "Manifest") -> None:
    """What the backend made of the graphs."""
    if manifest.backend.targets is not None:
        output.print(f"{manifest.backend.name}: {manifest.backend.targets}", soft_wrap=True)
    if manifest.backend.tensorrt is not None and manifest.backend.tensorrt.expose_reductions:
        output.print("reductions are outputs of the network, so that nothing is fused across them", soft_wrap=True)
    for branch in BRANCHES:
        compiled = manifest.engine(branch).compiled
        if compiled is not None and compiled.layers:
            layers = ", ".join(f"{count} in {name}" for name, count in compiled.layers.items())
            output.print(f"{branch}: the backend computes layers {layers}")
        if compiled is not None and compiled.wider:
            output.print(f"{branch}: computed in a wider type than the graph's: {', '.join(compiled.wider)}")


def _show_quantisation(made: "QuantisationEntry") -> None:
    calibration = made.calibration
    output.print(
        f"calibrated on {calibration.images} images a branch of {calibration.data}, {calibration.choice}, by "
        f"{calibration.method}",
        soft_wrap=True,
    )
    output.print(int8_share(made))
    for name, share in made.argmax_flips.items():
        output.print(f"{name}: another channel wins the saliency's arg-max in {percent(share)} % of positions")
    if made.search is not None:
        show_search(made.search, made.rest)
