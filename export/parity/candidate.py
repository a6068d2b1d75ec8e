"""One candidate measured: by stage, in every pairing, in other batches, its graph looked into; and judged."""

from dataclasses import dataclass

import msgspec

from geodtr.export.build.batches import batch_invariance
from geodtr.export.graph.projection import read_projection
from geodtr.export.model import Model
from geodtr.export.parity.gates import Gates
from geodtr.export.parity.judgement import Measured, judge
from geodtr.export.parity.measurements import LayerAgreement
from geodtr.export.parity.measures.audit import audit
from geodtr.export.parity.measures.describing import describe
from geodtr.export.parity.measures.descriptors import compare_descriptors
from geodtr.export.parity.measures.layers import layer_agreements
from geodtr.export.parity.measures.pairings import pairing
from geodtr.export.parity.measures.stages import (
    RUNS_BY,
    Described,
    as_written,
    chain,
    described,
    discrete_steps,
    same_graphs,
)
from geodtr.export.parity.remedy import Comparison, next_step
from geodtr.export.parity.result import Candidate, CandidateEvidence
from geodtr.export.parity.run import Run
from geodtr.export.timing import Timing
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.errors import DataError
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.progress import Track


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a run: its gates, and whether `stages` and `layers` are looked into as well."""

    gates: Gates
    stages: bool
    layers: bool


@dataclass(frozen=True, slots=True)
class Contender:
    """A model under test: `model`, whose files are in `bundle`, called `name` in this run.

    `exact` holds the bundle's float32 source files, if available. `timing` is beside the reference's and, unless it is
    float32 itself, the first float32 candidate's of the same rounds.
    """

    name: str
    model: Model
    bundle: Bundle
    exact: Bundle | None
    timing: Timing
    reference_timing: Timing
    fp32_timing: Timing | None

    @property
    def typed(self) -> bool:
        """Whether its files are others than the float32 ones."""
        return self.exact is None or not same_graphs(self.exact, self.bundle)


def measure(run: Run, asked: Asked, contender: Contender, track: Track) -> tuple[Candidate, CandidateEvidence]:
    """Measure a candidate against the run's reference, and judge it.

    Where the candidate projects its descriptors and the reference does not, it is held against the reference's in the
    same projection, and its recall against the reference's own as well.
    """
    model, bundle, exact = contender.model, contender.bundle, contender.exact
    full = None
    if model.embedding_id != run.reference.embedding_id:
        full, run = run.ranking, run.projected(read_projection(bundle))
    way = _describe(run, asked, contender, track)
    engine = way[-1]
    steps = discrete_steps(exact, bundle, run.pair_set) if asked.stages and exact is not None else {}
    compared = compare_descriptors(run.descriptors, run.ranking, engine.descriptors, engine.ranking, steps)
    pairings = compared.pairings
    if full is not None:
        pairings = (*pairings, pairing("full", full, engine.ranking))
    stages = chain(run.descriptors, run.ranking, way, steps) if asked.stages else ()
    ground, aerial = (
        batch_invariance(model.embedders[branch], run.pair_set, engine.descriptors[branch], model.precision)
        for branch in BRANCHES
    )
    audits = audit(bundle, "ground"), audit(bundle, "aerial")
    layers: tuple[LayerAgreement, ...] = ()
    if asked.layers and exact is not None and contender.typed:
        layers = layer_agreements(exact, bundle, run.pair_set, track=track)
    measured = Measured(
        compared.branches,
        pairings,
        (ground, aerial),
        audits,
        _other_input(run.reference, model, bundle),
        stages,
    )
    entry = bundle.manifest.quantisation
    limits = asked.gates.limits(model.precision, model.tolerance, None if entry is None else entry.keep_cosine)
    gate = judge(measured, limits)
    timing, fp32 = contender.timing, contender.fp32_timing
    layers_left = not asked.layers and run.reference.precision == "fp32" != model.precision
    candidate = Candidate(
        name=contender.name,
        path=str(model.path),
        runs_by=model.runs_by,
        precision=model.precision,
        branches=compared.branches,
        pairings=pairings,
        stages=stages,
        batches=(ground, aerial),
        audit=audits,
        layers=layers,
        speed=timing.speed,
        times_reference=timing.ratio(contender.reference_timing),
        times_fp32=None if fp32 is None else timing.ratio(fp32),
        bytes=model.bytes,
        gate=gate,
        next_step=next_step(gate, Comparison(run.reference, bundle, run.pair_set.name, layers_left)),
    )
    evidence = CandidateEvidence(compared.cosine, compared.rankings, {stage.name: stage.ranking for stage in way})
    return candidate, evidence


def _describe(run: Run, asked: Asked, contender: Contender, track: Track) -> list[Described]:
    """The stages in their order, the engine last; a typed file that is the float32 one is no stage of its own."""
    model, bundle = contender.model, contender.bundle
    embedders = [as_written(bundle), model.embedders] if asked.stages and contender.typed else [model.embedders]
    *of_file, engine = describe(embedders, run.pair_set, contender.name, track=track)
    unread = engine.pair_set.skipped[len(run.pair_set.skipped) :]
    if unread:
        raise DataError(
            f"{unread[0].path} could be read for {run.reference.name} and not for {contender.name}: "
            f"{unread[0].reason}. Leave its pair out, or repair it and compare again."
        )
    side = bundle.manifest.source.raw_tiles
    way = [run.onnx[side]] if side in run.onnx else []
    way += [described("typed", RUNS_BY, rows) for rows in of_file]
    return [*way, described("engine", model.runs_by, engine)]


def _other_input(reference: Model, model: Model, bundle: Bundle) -> str | None:
    """How the model's preprocessing differs from the reference's, in words; None if it does not."""
    for branch in BRANCHES:
        wanted = reference.embedders[branch].spec.preprocessing
        side = bundle.manifest.source.raw_tiles
        if branch == "aerial" and side is not None:
            wanted = msgspec.structs.replace(wanted, height=side, width=side, polar=False)
        used = model.embedders[branch].spec.preprocessing
        if used != wanted:
            differing = ", ".join(
                f"{name} {getattr(used, name)} instead of {getattr(wanted, name)}"
                for name in used.__struct_fields__
                if getattr(used, name) != getattr(wanted, name)
            )
            return f"{branch} images are prepared otherwise than for the reference: {differing}"
    return None
