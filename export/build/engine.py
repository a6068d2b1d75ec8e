"""From a checkpoint to a bundle: export both branches, type them, build their engines, check what was built."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from geodtr.export.backends.registry import Builder
from geodtr.export.build.compile import compile_graphs, engine_entry
from geodtr.export.graph.checks import check_ours
from geodtr.export.graph.pixel_order import check_readable
from geodtr.export.precision.searched_graphs import SearchPlan, write_searched
from geodtr.export.precision.write import CalibrationPlan, write_quantised, write_typed
from geodtr.export.speed import BATCH, check_faster, measure_speed
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.errors import BundleError, ConfigError
from geodtr.runtime.files import check_new_folder, new_folder, scratch_in
from geodtr.runtime.manifest import (
    FILE_NAME,
    BackendEntry,
    EngineEntry,
    Manifest,
    SourceEntry,
    read_manifest,
    write_manifest,
)
from geodtr.runtime.names import BRANCHES, QUANTISED, Branch, Dialect, Precision, asked_as
from geodtr.runtime.preflight import check_graphs, require
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import BranchSpec

if TYPE_CHECKING:
    from torch import nn


def export_checkpoint(checkpoint: Path, out: Path, *, raw_tiles: int | None = None, track: Track = untracked) -> Bundle:
    """Export both branches of a checkpoint to float32 ONNX files, compared with PyTorch, in a bundle `out`.

    With `raw_tiles`, the aerial graph takes square tiles of that side and unrolls them itself. Raises CheckpointError,
    OutputExists, ConfigError when there is no polar transform.
    """
    import onnx

    from geodtr.export.backends.tensorrt.parser import check_operators
    from geodtr.export.graph.checks import check_export
    from geodtr.export.graph.export import export_network
    from geodtr.export.graph.raw_tiles import FromRawTiles, raw_tile_spec
    from geodtr.training.models.checkpoint import load_checkpoint
    from geodtr.training.models.embedder import TorchEmbedder, from_pixels

    check_new_folder(out)
    loaded = load_checkpoint(checkpoint)
    specs: dict[Branch, BranchSpec] = dict(loaded.model.specs)
    networks: dict[Branch, nn.Module] = {branch: from_pixels(loaded.model, branch) for branch in BRANCHES}
    if raw_tiles is not None:
        aerial = specs["aerial"]
        specs["aerial"] = raw_tile_spec(aerial, raw_tiles)
        networks["aerial"] = FromRawTiles(loaded.model.branch("aerial"), aerial.preprocessing, raw_tiles)
    with new_folder(out) as folder:
        entries: dict[Branch, EngineEntry] = {}
        for branch in track(BRANCHES, "Exporting to ONNX", len(BRANCHES)):
            file = folder / f"{branch}.onnx"
            onnx.save(export_network(networks[branch], specs[branch].preprocessing), str(file))
            check_operators(onnx.load(str(file)))
            check_export(file, TorchEmbedder(networks[branch], specs[branch]))
            entries[branch] = engine_entry(file, specs[branch])
        manifest = Manifest(
            embedding_id=loaded.embedding_id,
            precision="fp32",
            backend=BackendEntry(name="onnx", version=onnx.__version__),
            ground=entries["ground"],
            aerial=entries["aerial"],
            source=SourceEntry(
                sha256=loaded.sha256,
                origin=loaded.info.origin,
                trained_on=loaded.info.trained_on,
                raw_tiles=raw_tiles,
            ),
        )
        write_manifest(folder, manifest)
    return open_bundle(out)


def build_engine(
    source: Path,
    out: Path,
    *,
    precision: Precision,
    builder: Builder,
    calibration: CalibrationPlan | SearchPlan | None = None,
    require_faster: bool = False,
    speed_batch: int = BATCH,
    track: Track = untracked,
) -> Bundle:
    """Build engines of both branches into a bundle `out`, whole or not at all.

    `source` is a checkpoint, or a float32 bundle that was exported from one. Raises ConfigError when a quantised
    precision is asked for without `calibration`, or `mixed` without a search's, BundleError when the source bundle is
    not float32, and what the builder and reading the source raise. `require_faster`: measure the engines beside float32
    ones of the same backend, `speed_batch` images a call, write the ratio into the manifest, and raise GateNotMet when
    a branch is not faster.
    """
    check_new_folder(out)
    backend = builder.check(precision)
    if require_faster:
        check_can_be_faster(precision)
        check_comparable(builder)
    check_has_images(precision, calibration)
    if not backend.executed and (require_faster or precision == "mixed"):
        raise ConfigError(
            f"{'--require-faster' if require_faster else '--precision auto'} measures engines, and {backend.name}'s do "
            "not run on this machine. Leave it out, or build where a GPU of theirs is."
        )
    if precision == "mixed" and not isinstance(calibration, SearchPlan):
        raise ConfigError("Choosing blocks by recall needs pairs to measure it on: add --recall-on SPEC.")
    with new_folder(out) as folder, scratch_in(folder) as scratch, float32_bundle(source, track, scratch) as exported:
        check_readable(exported.path, exported.manifest, backend)
        if isinstance(calibration, SearchPlan):
            searched, builder = write_searched(exported, calibration, builder, folder, scratch, track=track)
            backend = builder.check(precision)
            manifest = msgspec.structs.replace(exported.manifest, precision=precision, quantisation=searched)
            plan: CalibrationPlan | None = calibration.calibration
        else:
            manifest = write_graphs(exported, precision, calibration, builder.dialect, folder, track=track)
            plan = calibration
        built = compile_graphs(folder, manifest, backend, builder, plan, track=track)
        if require_faster:
            speed = measure_speed(built, exported, builder, scratch, speed_batch, track=track)
            check_faster(speed, built.manifest)
            write_manifest(folder, msgspec.structs.replace(built.manifest, speed=speed))
    if isinstance(calibration, SearchPlan):
        calibration.journal.unlink(missing_ok=True)
    return open_bundle(out)


def write_graphs(
    exported: Bundle,
    precision: Precision,
    calibration: CalibrationPlan | None,
    dialect: Dialect,
    folder: Path,
    *,
    track: Track = untracked,
) -> Manifest:
    """Write both branches' graphs of the float32 bundle `exported` into `folder`, typed in `precision`. Returns the
    manifest of what they are; no backend has compiled them yet.
    """
    quantisation = None
    if calibration is not None and precision in QUANTISED:
        quantisation = write_quantised(exported, calibration, precision, dialect, folder, track=track)
    else:
        write_typed(exported, precision, folder, track=track)
    return msgspec.structs.replace(exported.manifest, precision=precision, quantisation=quantisation)


def check_has_images(precision: Precision, calibration: CalibrationPlan | SearchPlan | None) -> None:
    """Raise ConfigError when a quantised precision is asked for, and nothing to calibrate it on is given."""
    if precision in QUANTISED and calibration is None:
        raise ConfigError(
            f"{asked_as(precision)} needs images to measure activation ranges on: add --calibration SPEC, for example "
            "--calibration cvusa:PATH#train (200 images are drawn from it)."
        )


def check_can_be_faster(precision: Precision) -> None:
    """Raise ConfigError for the precision that others are compared with."""
    if precision == "fp32":
        raise ConfigError("fp32 is what other precisions are to be faster than; leave --require-faster out.")


def check_comparable(builder: Builder) -> None:
    """Raise ConfigError when the float32 engines to compare with cannot be built as the others are."""
    try:
        builder.check("fp32")
    except ConfigError as error:
        raise ConfigError(
            f"--require-faster compares with fp32 engines built by the same options, and there are none: {error} Leave "
            "--require-faster out; bench compares bundles that were built in different ways."
        ) from None


def recompile(source: Path, out: Path, *, builder: Builder, track: Track = untracked) -> Bundle:
    """Compile the typed graphs of the bundle `source` anew, for the machine and versions at hand, into a bundle `out`.

    Only its graphs need be whole. Precision, and the dialect of a quantised one, are those that the graphs have: raises
    ConfigError when the builder wants another dialect, BundleError when a graph is missing or altered.
    """
    check_new_folder(out)
    manifest = read_manifest(source)
    require(check_graphs(source, manifest))
    backend = builder.check(manifest.precision)
    check_dialect(source, manifest, builder)
    check_readable(source, manifest, backend)
    with new_folder(out) as folder:
        copy_graphs(source, manifest, folder)
        compile_graphs(folder, manifest, backend, builder, None, track=track)
    return open_bundle(out)


def check_dialect(source: Path, manifest: Manifest, builder: Builder) -> None:
    """Raise ConfigError when the bundle `source` holds quantised graphs of another dialect than the builder wants."""
    made = manifest.quantisation
    if made is not None and manifest.precision != "fp8" and made.dialect != builder.dialect:
        raise ConfigError(
            f"The graphs of {source} are quantised as {made.dialect}, and {builder.dialect} is wanted. Add --dialect "
            f"{made.dialect} if the target computes that rightly, or build from the checkpoint."
        )


def copy_graphs(source: Path, manifest: Manifest, folder: Path) -> None:
    """Copy both typed graphs of the bundle `source` into `folder`. Raises GraphError when they are none of ours."""
    for branch in BRANCHES:
        file = manifest.engine(branch).file
        check_ours(source / file, manifest.engine(branch).spec)
        shutil.copyfile(source / file, folder / file)


@contextmanager
def float32_bundle(source: Path, track: Track, scratch: Path | None = None) -> Iterator[Bundle]:
    """The exported form of `source`: itself when it is a float32 bundle, a temporary export when it is a checkpoint, in
    the folder `scratch` or the system's own.

    Raises BundleError for another bundle, GraphError when a bundle's graphs are none of this project's.
    """
    if source.suffix == ".onnx":
        raise BundleError(
            f"{source} is an ONNX file. Name the bundle folder that it lies in, or the checkpoint that it was exported "
            "from."
        )
    if (source / FILE_NAME).is_file():
        bundle = open_bundle(source)
        if bundle.manifest.precision != "fp32":
            raise BundleError(
                f"{source} is {bundle.manifest.precision}; engines are built from float32. Name the "
                "checkpoint, or what `geodtr-export export CKPT --out BUNDLE` made of it; or compile its own graphs "
                "again by --precision same."
            )
        for branch in BRANCHES:
            entry = bundle.manifest.engine(branch)
            check_ours(source / entry.file, entry.spec)
        yield bundle
        return
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        yield export_checkpoint(source, Path(folder) / "onnx", track=track)
