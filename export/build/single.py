"""Building for one backend: type the graphs, compile them, check what was compiled."""

from pathlib import Path

import msgspec

from geodtr.export.backends.base import Builder
from geodtr.export.build.compile import compile_graphs
from geodtr.export.build.graphs import check_comparable, check_dialect, copy_graphs, write_graphs
from geodtr.export.build.projected import ProjectionPlan, projected
from geodtr.export.build.source import float32_bundle
from geodtr.export.graph.pixel_order import check_readable
from geodtr.export.precision.searched_graphs import SearchPlan, write_searched
from geodtr.export.precision.write import CalibrationPlan
from geodtr.export.speed import check_faster, measure_speed
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import new_folder, scratch_in
from geodtr.runtime.manifest import BackendEntry, read_manifest, write_manifest
from geodtr.runtime.names import Precision
from geodtr.runtime.preflight import check_graphs, require
from geodtr.runtime.progress import Track


def check_builder(builder: Builder, precision: Precision, require_faster: bool) -> BackendEntry:
    """The backend as it is installed. Raises ConfigError or MissingDependency, before any work, where it cannot build
    what is asked for.
    """
    backend = builder.check(precision)
    if require_faster:
        check_comparable(builder)
    if not backend.executed and (require_faster or precision == "mixed"):
        raise ConfigError(
            f"{'--require-faster' if require_faster else '--precision auto'} measures engines, and {backend.name}'s do "
            "not run on this machine. Leave it out, or build where a GPU of theirs is."
        )
    return backend


def build_single(
    source: Path,
    out: Path,
    precision: Precision,
    builder: Builder,
    backend: BackendEntry,
    plan: CalibrationPlan | SearchPlan | None,
    *,
    projection: ProjectionPlan | None,
    command: str,
    require_faster: bool,
    speed_batch: int,
    track: Track,
) -> None:
    """Build engines of both branches into a bundle `out`, whole or not at all. `plan`: a SearchPlan for `mixed`, a
    CalibrationPlan for the other quantised precisions. `projection`: of the descriptors. `command`: the line
    that the manifest records.
    """
    with new_folder(out) as folder, scratch_in(folder) as scratch, float32_bundle(source, track, scratch) as whole:
        exported = projected(whole, projection, scratch, track=track)
        check_readable(exported.path, exported.manifest, backend)
        if isinstance(plan, SearchPlan):
            searched, builder = write_searched(exported, plan, builder, folder, scratch, track=track)
            backend = builder.check(precision)
            manifest = msgspec.structs.replace(exported.manifest, precision=precision, quantisation=searched)
            calibration: CalibrationPlan | None = plan.calibration
        else:
            manifest = write_graphs(exported, precision, plan, builder.dialect, folder, track=track)
            calibration = plan
        manifest = msgspec.structs.replace(manifest, command=command)
        built = compile_graphs(folder, manifest, backend, builder, calibration, track=track)
        if require_faster:
            speed = measure_speed(built, exported, builder, scratch, speed_batch, track=track)
            check_faster(speed, built.manifest)
            write_manifest(folder, msgspec.structs.replace(built.manifest, speed=speed))
    if isinstance(plan, SearchPlan):
        plan.journal.unlink(missing_ok=True)


def recompile_single(source: Path, out: Path, builder: Builder, *, command: str, track: Track) -> None:
    """Compile the typed graphs of the bundle `source` again, for the machine and versions at hand, into a bundle `out`.

    Only its graphs need be whole. Precision, and the dialect of a quantised one, are those that the graphs have: raises
    ConfigError when the builder wants another dialect, BundleError when a graph is missing or altered.
    """
    manifest = read_manifest(source)
    require(check_graphs(source, manifest))
    backend = builder.check(manifest.precision)
    check_dialect(source, manifest, builder)
    check_readable(source, manifest, backend)
    with new_folder(out) as folder:
        copy_graphs(source, manifest, folder)
        manifest = msgspec.structs.replace(manifest, command=command)
        compile_graphs(folder, manifest, backend, builder, None, track=track)
