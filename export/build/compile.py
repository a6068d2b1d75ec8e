"""Typed graphs compiled by a backend, and checked: every engine that is kept comes through here."""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from geodtr.export.backends.base import Builder, Compiled
from geodtr.export.build.batches import batch_fault, compare_batches
from geodtr.export.graph.checks import BATCHES
from geodtr.export.graph.shared_weights import share_weights, weights_of
from geodtr.export.graph.structure import GraphError
from geodtr.export.precision.agreement import check_agreement
from geodtr.export.precision.write import CalibrationPlan
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.embed.pipeline import in_batches
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session, optimisation_of
from geodtr.runtime.errors import BuildError
from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import BackendEntry, CompiledEntry, EngineEntry, FileEntry, Manifest, write_manifest
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.progress import Track
from geodtr.runtime.spec import BranchSpec, Embedder, Images, noise

_SAMPLE = 8
_REAL = 4
"""Images that stand beside noise: an arg-max that flips shows in noise most often, in images as a user will meet it."""


def compile_graphs(
    folder: Path,
    manifest: Manifest,
    backend: BackendEntry,
    builder: Builder,
    calibration: CalibrationPlan | None,
    *,
    track: Track,
) -> Bundle:
    """Compile the typed graphs in `folder`, write its manifest after `manifest`, and check the engines as they are.

    Where they do not compute what their graphs say, the builder may have another way, which is tried once. Graphs of
    one network for both branches share their weights; what a backend compiles holds its own.
    """
    if manifest.ground.weights is not None:
        share_weights([folder / manifest.engine(branch).file for branch in BRANCHES])
    built = _compiled(folder, manifest, backend, builder, track)
    try:
        _check_engines(built, calibration, track)
    except (GraphError, BuildError) as fault:
        other = builder.another_way(str(fault)) if backend.executed else None
        if other is None:
            raise
        built = _compiled(folder, manifest, other.check(manifest.precision), other, track)
        _check_engines(built, calibration, track)
    return built


def _compiled(folder: Path, manifest: Manifest, backend: BackendEntry, builder: Builder, track: Track) -> Bundle:
    entries: dict[Branch, EngineEntry] = {}
    for branch in BRANCHES:
        engine = manifest.engine(branch)
        precision = manifest.precision_of(branch)
        compiled = builder.compile(folder / engine.file, engine.spec, precision, folder, track=track)
        entries[branch] = engine_entry(folder / engine.file, engine.spec, compiled)
    write_manifest(
        folder,
        msgspec.structs.replace(
            manifest,
            backend=backend,
            ground=entries["ground"],
            aerial=entries["aerial"],
            speed=None,
            backend_choice=None,
            parity=(),
        ),
    )
    return open_bundle(folder)


def _check_engines(built: Bundle, calibration: CalibrationPlan | None, track: Track) -> None:
    manifest = built.manifest
    for branch in track(BRANCHES, "Checking engines", len(BRANCHES)):
        final, graph = _runnable(built, branch), built.path / manifest.engine(branch).file
        kept = None if manifest.quantisation is None else manifest.quantisation.keep_cosine
        images, precision = _sample(final.spec, calibration), manifest.precision_of(branch)
        check_batch_invariance(final, precision, images)
        check_agreement(final, graph, images, precision, kept)


def _runnable(built: Bundle, branch: Branch) -> Embedder:
    """A branch's engine; where that cannot be run here, its graph by ONNX Runtime."""
    if built.manifest.backend.executed:
        return built.embedder(branch, EngineOptions(trust_host_code=True, keep_compiled=False))
    entry = built.manifest.engine(branch)
    graph = built.path / entry.file
    session = open_session(graph, optimisation=optimisation_of(built.manifest.precision_of(branch)))
    return OnnxRuntimeEmbedder(session, entry.spec, graph)


def check_batch_invariance(embedder: Embedder, precision: Precision, images: Images) -> None:
    """Run an engine on some of `images` and on noise: rows must be finite, of unit length, and the same in every
    batch.

    Needs no reference model. Raises GraphError.
    """
    real = images[:_REAL]
    sample = np.concatenate([real, noise(embedder.spec, max(BATCHES))[len(real) :]])
    if not np.allclose(np.linalg.norm(embedder.embed(sample), axis=1), 1, atol=1e-4):
        raise GraphError(f"the {embedder.spec.branch} engine gives rows that are not of unit length")
    fault = batch_fault(compare_batches(embedder, sample, precision))
    if fault is not None:
        raise GraphError(
            f"the {embedder.spec.branch} engine {fault}. Nothing was written. Build in another precision, or for "
            "another --backend; --ranges FILE keeps what was calibrated."
        )


def _sample(spec: BranchSpec, calibration: CalibrationPlan | None) -> Images:
    """Images to compare engines on: of the calibration's pool where there is one, else noise."""
    if calibration is None:
        return noise(spec, max(BATCHES))
    pool = calibration.pool
    return next(in_batches(pool.images[spec.branch][:_SAMPLE], partial(pool.load, spec), _SAMPLE))


def engine_entry(file: Path, spec: BranchSpec, made: Compiled | None = None) -> EngineEntry:
    """The manifest's entry for an engine's file, and for what a backend compiled from it."""
    compiled = None
    if made is not None:
        compiled = CompiledEntry(**_file(made.file), layers=made.layers, wider=made.wider)
    shared = weights_of(file)
    weights = None if shared is None else FileEntry(**_file(shared))
    return EngineEntry(**_file(file), spec=spec, weights=weights, compiled=compiled)


def _file(file: Path) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)}
