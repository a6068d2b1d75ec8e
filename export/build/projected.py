"""A float32 bundle whose descriptors are projected to fewer numbers: from it, engines are built as from any other."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from geodtr.export.build.compile import engine_entry
from geodtr.export.graph.checks import BATCHES, SMALLEST_COSINE
from geodtr.export.graph.projection import with_projection
from geodtr.export.graph.shared_weights import share_weights
from geodtr.export.graph.structure import GraphError
from geodtr.export.projection import Projection
from geodtr.export.projection.fitting import Fitted, Fitting, check_count, check_size
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.engines.onnxruntime import OnnxRuntimeEmbedder, open_session
from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.manifest import ProjectionEntry, write_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import BranchSpec, Embedder, noise, scorer_name
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import embed_pairs


@dataclass(frozen=True, slots=True)
class ProjectionPlan:
    """Descriptors of `size` numbers, by a projection fitted to `pairs`. Raises DataError when these are too few."""

    size: int
    pairs: PairSet

    def __post_init__(self) -> None:
        check_count(self.size, self.pairs)


def projected(exported: Bundle, plan: ProjectionPlan | None, scratch: Path, *, track: Track = untracked) -> Bundle:
    """The float32 bundle `exported` as planned: itself without a plan, or one in the folder `scratch` with a projection
    fitted to the descriptors that it gives.

    Raises ConfigError when the model's descriptors cannot be projected: they are short enough, are projected already,
    or are compared by another scorer than the cosine; DataError when the pairs are too few.
    """
    if plan is None:
        return exported
    check_projectable(exported, plan.size)
    pairs = embed_pairs(exported.embedders(), plan.pairs, track=track)
    fitted = Fitting(pairs).to(plan.size, track=track)
    return write_projected(exported, fitted, pairs.pair_set, scratch / "projected")


def check_projectable(exported: Bundle, size: int) -> None:
    """Raise ConfigError unless descriptors of the bundle `exported` can be projected to `size` numbers."""
    spec, held = exported.manifest.ground.spec, exported.manifest.projection
    if spec.scorer is not None:
        raise ArgumentError(
            "descriptor_size",
            f"is not for this model: its descriptors are compared by {scorer_name(spec.scorer)}, which needs them "
            "whole. Only those that are compared by the cosine can be projected. Leave it out.",
        )
    if held is not None:
        raise ArgumentError(
            "descriptor_size",
            f"is not for {exported.path}: its descriptors are projected already, from {held.full_size} numbers to "
            f"{spec.descriptor_size}. Leave it out to keep that projection, or name the checkpoint.",
        )
    check_size(size, spec.descriptor_size)


def write_projected(exported: Bundle, fitted: Fitted, pairs: PairSet, folder: Path) -> Bundle:
    """Write the graphs of the float32 bundle `exported`, each with the projection behind it, as a bundle `folder`.

    Raises GraphError when a graph does not compute what float64 does.
    """
    import onnx

    folder.mkdir()
    specs: dict[Branch, BranchSpec] = {}
    for branch in BRANCHES:
        entry = exported.manifest.engine(branch)
        spec = msgspec.structs.replace(entry.spec, descriptor_size=fitted.projection.size)
        graph = with_projection(onnx.load(str(exported.path / entry.file)), fitted.projection, branch)
        onnx.save(graph, str(folder / entry.file))
        _check_graph(folder / entry.file, spec, exported.embedder(branch), fitted.projection)
        specs[branch] = spec
    if exported.manifest.ground.weights is not None:
        share_weights([folder / exported.manifest.engine(branch).file for branch in BRANCHES])
    entries = {
        branch: engine_entry(folder / exported.manifest.engine(branch).file, specs[branch]) for branch in BRANCHES
    }
    manifest = exported.manifest
    projection = ProjectionEntry(
        of=manifest.embedding_id,
        full_size=manifest.ground.spec.descriptor_size,
        data=pairs.name,
        data_sha256=pairs.fingerprint(),
        pairs=len(pairs),
        variance=fitted.variance,
        whitening=fitted.whitening,
        queries=fitted.queries,
        full_hits=fitted.full_hits,
        trials=fitted.trials,
        layer_hits=fitted.layer_hits,
        is_trained=fitted.is_trained,
    )
    manifest = msgspec.structs.replace(
        manifest,
        embedding_id=fitted.projection.embedding_id(manifest.embedding_id),
        ground=entries["ground"],
        aerial=entries["aerial"],
        projection=projection,
        parity=(),
    )
    write_manifest(folder, manifest)
    return open_bundle(folder)


def _check_graph(file: Path, spec: BranchSpec, before: Embedder, projection: Projection) -> None:
    """Raise GraphError unless the graph gives what float64 makes of the descriptors before it, in every batch."""
    images = noise(spec, max(BATCHES))
    after = OnnxRuntimeEmbedder(open_session(file), spec, file)
    for batch in BATCHES:
        expected = projection.project(spec.branch, before.embed(images[:batch]))
        cosine = float(np.sum(after.embed(images[:batch]) * expected, axis=1).min())
        if not cosine >= SMALLEST_COSINE:
            raise GraphError(
                f"The projected {spec.branch} branch differs from float64 (cosine {cosine:.7f}) at batch {batch}; "
                f"allowed is {SMALLEST_COSINE}. Nothing was written. Name more pairs by --compact-on."
            )
