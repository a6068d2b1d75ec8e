"""The typed graphs of a build: written from float32 ones, or copied from a bundle, and held against the builder."""

import shutil
from pathlib import Path

import msgspec

from geodtr.export.backends.base import Builder
from geodtr.export.graph.checks import check_ours
from geodtr.export.precision.write import CalibrationPlan, write_quantised, write_typed
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.errors import ArgumentError, ConfigError
from geodtr.runtime.manifest import Manifest, read_manifest
from geodtr.runtime.names import BRANCHES, QUANTISED, Dialect, Precision
from geodtr.runtime.preflight import check_graphs, require
from geodtr.runtime.progress import Track, untracked


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
    if precision in QUANTISED:
        assert calibration is not None  # a request without one is refused
        quantisation = write_quantised(exported, calibration, precision, dialect, folder, track=track)
    else:
        write_typed(exported, precision, folder, track=track)
    return msgspec.structs.replace(exported.manifest, precision=precision, quantisation=quantisation)


def check_comparable(builder: Builder) -> None:
    """Raise ConfigError when the float32 engines to compare with cannot be built as the others are."""
    try:
        builder.check("fp32")
    except ConfigError as error:
        raise ArgumentError(
            "require_faster",
            f"compares with fp32 engines built by the same options, and there are none: {error} Leave it out; bench "
            "compares bundles that were built in different ways.",
        ) from None


def read_typed(source: Path, dialect: Dialect | None) -> Manifest:
    """The manifest of a bundle whose typed graphs are to be compiled again; only these need be whole.

    Raises BundleError when one is missing or altered, ConfigError when a `dialect` is named and none of them is INT8.
    """
    manifest = read_manifest(source)
    require(check_graphs(source, manifest))
    if dialect is not None and manifest.precision not in ("int8", "mixed"):
        fault = f"is for int8 graphs, and the graphs of {source} are {manifest.precision}. Leave it out."
        raise ArgumentError("dialect", fault)
    return manifest


def check_dialect(source: Path, manifest: Manifest, builder: Builder) -> None:
    """Raise ConfigError when the bundle `source` contains quantised graphs of another dialect than the builder's."""
    entry = manifest.quantisation
    if entry is not None and manifest.precision != "fp8" and entry.dialect != builder.dialect:
        raise ConfigError(
            f"The graphs of {source} are quantised as {entry.dialect}, and {builder.dialect} is wanted. Add --dialect "
            f"{entry.dialect} if the target computes that rightly, or build from the checkpoint."
        )


def copy_graphs(source: Path, manifest: Manifest, folder: Path) -> None:
    """Copy both typed graphs of the bundle `source` into `folder`. Raises GraphError when they are none of ours."""
    for branch in BRANCHES:
        check_ours(source / manifest.engine(branch).file, manifest.engine(branch).spec)
    for entry in manifest.graph_files:
        shutil.copyfile(source / entry.file, folder / entry.file)
