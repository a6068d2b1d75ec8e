"""A reference model against its engines, on the same images: described, ranked, timed, judged."""

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec

from geodtr import __version__
from geodtr.export.bench.measure import packages
from geodtr.export.model import Model, distinct_names
from geodtr.export.parity.candidate import Asked, Contender, measure
from geodtr.export.parity.gates import AS_PROMISED, Gates
from geodtr.export.parity.measures.layers import check_layers
from geodtr.export.parity.measures.pairings import median_margin
from geodtr.export.parity.measures.stages import float32_graphs
from geodtr.export.parity.result import Evidence, ParityFigures, ParityResult, Reference, together
from geodtr.export.parity.run import begin, check_pairs
from geodtr.export.timing import time_pairs
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.errors import ArgumentError, BundleError, MissingDependency
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import this_cpu, this_gpu
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import recall
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import doubt

_SPEED_BATCH, _SPEED_ROUNDS = 32, 5


def compare(
    reference: Model,
    candidates: Sequence[Model],
    pair_set: PairSet,
    *,
    gates: Gates = AS_PROMISED,
    stages: bool = True,
    layers: bool = False,
    track: Track = untracked,
) -> ParityResult:
    """Embed `pair_set` with every model, rank in every pairing of queries and galleries, and judge each candidate.

    `stages`: run the float32 and the typed ONNX files as well, so that a loss is blamed on the step that made it; of a
    checkpoint, the float32 ones are exported for it. `layers`: compare the two files node by node. Images that cannot
    be read are left out with their pairs. Nothing is written: `record` puts verdicts into the bundles.
    A candidate that projects its descriptors may be held against its checkpoint, or a bundle with the same projection.
    Raises BundleError when a candidate is no bundle or was made from another checkpoint, ConfigError when layers are
    asked for and cannot be compared, DataError when the set has tiles to look up or fewer than two pairs can be read,
    DescriptorError when the reference's own descriptors are not finite, MissingDependency for stages or layers without
    ONNX Runtime.
    """
    if (stages or layers) and find_spec("onnxruntime") is None:
        raise MissingDependency(
            f"Comparing step by step needs ONNX Runtime: {install_hint('cpu')}. --no-stages, in Python "
            "stages=False, compares the engines alone."
        )
    check_pairs(pair_set)
    bundles = _check_comparable(reference, candidates)
    names = distinct_names([reference, *candidates])
    settings = Asked(gates, stages, layers)
    with ExitStack() as files:
        graphs: Mapping[int | None, Bundle] = {}
        if stages or layers:
            graphs = files.enter_context(float32_graphs(reference, bundles, track=track))
        exact = [graphs.get(bundle.manifest.source.raw_tiles) for bundle in bundles]
        for of_bundle, bundle in zip(exact, bundles, strict=True) if layers else ():
            check_layers(of_bundle, bundle)
        run = begin(reference, graphs if stages else {}, pair_set, track=track)
        embedders = [model.embedders for model in (reference, *candidates)]
        batch = min(_SPEED_BATCH, len(run.pair_set))
        timings = [each["both"] for each in time_pairs(embedders, batch, rounds=_SPEED_ROUNDS, track=track)]
        fp32 = next((row for row, candidate in enumerate(candidates, 1) if candidate.precision == "fp32"), 0)
        contenders = [
            Contender(*each, timings[0], None if each[1].precision == "fp32" else timings[fp32])
            for each in zip(names[1:], candidates, bundles, exact, timings[1:], strict=True)
        ]
        measured = [measure(run, settings, contender, track) for contender in contenders]
    figures = ParityFigures(
        data=pair_set.name,
        views=pair_set.views,
        data_sha256=run.pair_set.fingerprint(),
        pairs=len(run.pair_set),
        skipped=run.pair_set.skipped,
        doubt=doubt(pair_set, reference.embedders.ground.spec),
        machine=this_gpu() or this_cpu(),
        cores=os.cpu_count() or 1,
        packages={"geodtr-export": __version__, "python": platform.python_version(), **packages()},
        reference=Reference(
            name=names[0],
            path=str(reference.path),
            runs_by=reference.runs_by,
            precision=reference.precision,
            recall=recall(run.ranking),
            median_margin=median_margin(run.ranking),
            speed=timings[0].speed,
            bytes=reference.bytes,
        ),
        fp32=names[fp32],
        candidates=tuple(candidate for candidate, _ in measured),
        require_certain=gates.require_certain,
        accept_undecided=gates.accept_undecided,
        verdict=together(*(candidate.gate.verdict for candidate, _ in measured)),
    )
    return ParityResult(figures, Evidence(run.pair_set, run.ranking, tuple(evidence for _, evidence in measured)))


def _check_comparable(reference: Model, candidates: Sequence[Model]) -> list[Bundle]:
    """The candidates' bundles. Raises ArgumentError where there are none, BundleError unless all are bundles of the
    reference's checkpoint.
    """
    if not candidates:
        raise ArgumentError("candidates", "is empty; name at least one bundle to compare with the reference.")
    bundles = list[Bundle]()
    for candidate in candidates:
        if candidate.bundle is None:
            raise BundleError(
                f"{candidate.path} is a checkpoint; candidates are bundles. Build one: geodtr-export build-engine "
                f"{candidate.path} --out BUNDLE"
            )
        projection = candidate.bundle.manifest.projection
        spaces = {candidate.embedding_id} if projection is None else {candidate.embedding_id, projection.of}
        if reference.embedding_id not in spaces:
            raise BundleError(
                f"{candidate.name} was made from another checkpoint, or projects its descriptors otherwise (embedding "
                f"id {candidate.embedding_id}) than {reference.name} ({reference.embedding_id}). Build it from this "
                f"one: geodtr-export build-engine {reference.path} --out BUNDLE"
            )
        bundles.append(candidate.bundle)
    return bundles
