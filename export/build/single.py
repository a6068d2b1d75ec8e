"""Building for one backend: type the graphs, compile them, check what was compiled."""

from collections.abc import Callable

import msgspec

from geodtr.export.backends.base import Builder
from geodtr.export.backends.options import BackendOptions
from geodtr.export.backends.registry import make_builder
from geodtr.export.build.command_line import command_line
from geodtr.export.build.compile import compile_graphs
from geodtr.export.build.graphs import check_comparable, check_dialect, copy_graphs, read_typed, write_graphs
from geodtr.export.build.plans import calibration_plan, projection_plan, search_plan
from geodtr.export.build.precisions import Auto
from geodtr.export.build.projected import projected
from geodtr.export.build.request import BuildRequest
from geodtr.export.build.source import float32_bundle
from geodtr.export.graph.pixel_order import check_readable
from geodtr.export.precision.searched_graphs import SearchPlan, write_searched
from geodtr.export.precision.write import CalibrationPlan
from geodtr.export.speed import BATCH, check_faster, measure_speed
from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.files import new_folder, scratch_in
from geodtr.runtime.manifest import BackendEntry, write_manifest
from geodtr.runtime.names import Precision
from geodtr.runtime.progress import Track


def build_single(request: BuildRequest, asked: BackendOptions, warn: Callable[[str], None], track: Track) -> None:
    """Build engines of both branches into a bundle, whole or not at all. `warn` is called with what the user should
    know.
    """
    precision, builder = request.precision, make_builder(asked, request.dialect, notice=warn)
    if precision is None:
        _recompile(request, builder, track)
        return
    backend = _check(builder, precision, request.require_faster)
    plan = search_plan(request, warn) if isinstance(request.plan, Auto) else calibration_plan(request.plan, warn)
    projection = projection_plan(request.compact, warn)
    with (
        new_folder(request.out) as folder,
        scratch_in(folder) as scratch,
        float32_bundle(request.source, track, scratch) as whole,
    ):
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
        manifest = msgspec.structs.replace(manifest, command=command_line(request))
        built = compile_graphs(folder, manifest, backend, builder, calibration, track=track)
        if request.require_faster:
            speed = measure_speed(built, exported, builder, scratch, request.speed_batch or BATCH, track=track)
            check_faster(speed, built.manifest)
            write_manifest(folder, msgspec.structs.replace(built.manifest, speed=speed))
    if isinstance(plan, SearchPlan):
        plan.journal.unlink(missing_ok=True)


def _check(builder: Builder, precision: Precision, require_faster: bool) -> BackendEntry:
    """The backend as it is installed. Raises ConfigError or MissingDependency, before any work, where it cannot build
    what is asked for.
    """
    backend = builder.check(precision)
    if require_faster:
        check_comparable(builder)
    if not backend.executed and (require_faster or precision == "mixed"):
        what = "require_faster" if require_faster else "precision"
        fault = f"{'' if require_faster else 'auto '}measures engines, and {backend.name}'s do not run on this machine."
        raise ArgumentError(what, f"{fault} Leave it out, or build where a GPU of theirs is.")
    return backend


def _recompile(request: BuildRequest, builder: Builder, track: Track) -> None:
    """Compile the typed graphs of a bundle again, for the machine and versions at hand.

    Precision, and the dialect of a quantised one, are those that the graphs have: raises ConfigError when the builder
    wants another dialect, and what `read_typed` raises.
    """
    manifest = read_typed(request.source, request.dialect)
    backend = builder.check(manifest.precision)
    check_dialect(request.source, manifest, builder)
    check_readable(request.source, manifest, backend)
    with new_folder(request.out) as folder:
        copy_graphs(request.source, manifest, folder)
        manifest = msgspec.structs.replace(manifest, command=command_line(request))
        compile_graphs(folder, manifest, backend, builder, None, track=track)
