"""A parity run on random descriptors without a model. The real functions compute every ranking, cosine and count. The
errors of an engine are random, from a seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.export.build.batches import BatchInvariance
from geodtr.export.cosines import cosines
from geodtr.export.parity.gates import AS_PROMISED, Gates
from geodtr.export.parity.judgement import Measured, judge
from geodtr.export.parity.measurements import BranchAudit, LayerAgreement, PairingName, StageName
from geodtr.export.parity.measures.agreement import agreements
from geodtr.export.parity.measures.pairings import median_margin, pairing, ranking
from geodtr.export.parity.measures.stages import chain, described
from geodtr.export.parity.result import (
    Candidate,
    CandidateEvidence,
    Evidence,
    ParityFigures,
    ParityResult,
    Reference,
    together,
)
from geodtr.runtime.machine import Machine
from geodtr.runtime.manifest import Ratio, Speed
from geodtr.runtime.names import BRANCHES, Branch, Precision
from geodtr.runtime.recall import Ranking, recall
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.data.views import ALL
from geodtr.training.evaluation.evaluate import DescriptorPair
from geodtr.training.world.dataset import WorldSet, write_world

_SIZE = 48


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated candidate: its name, its precision, and the approximate length of the noise on each descriptor."""

    name: str
    precision: Precision
    noise: float
    runs_by: str = "onnxruntime"
    faults: tuple[str, ...] = ()
    unread: str | None = None


USUAL = (
    Simulated("fp32", "fp32", 1e-6),
    Simulated("fp16", "fp16", 1e-3, unread="onnx is not installed"),
    Simulated("int8", "int8", 0.12),
)


def small_world(root: Path) -> PairSet:
    """Pairs for a simulated run: small images of the generated world."""
    write_world(root, WorldSet(pairs=150, height=16, width=64, region="coast"), workers=1)
    return read_pairs(root)


def simulated_parity(
    pair_set: PairSet,
    candidates: Sequence[Simulated] = USUAL,
    *,
    stages: bool = True,
    layers: bool = True,
    broken_images: int = 0,
    gates: Gates = AS_PROMISED,
    seed: int = 0,
) -> ParityResult:
    """A run on all of `pair_set`. The last candidate returns NaN for the first `broken_images` panoramas."""
    random = np.random.default_rng(seed)
    aerial = _unit(random.normal(size=(len(pair_set.references), _SIZE)))
    ground = _unit(aerial[pair_set.tiles] + 0.26 * random.normal(size=(len(pair_set), _SIZE)))
    expected = DescriptorPair(pair_set, ground, aerial, None, frozenset())
    before = _ranking(expected, expected)
    results, evidence = [], []
    for each in candidates:
        got = _disturbed(expected, each.noise, random)
        if each is candidates[-1]:
            got.ground[:broken_images] = np.nan
        steps: dict[StageName, DescriptorPair] = {
            "onnx": expected,
            "typed": _disturbed(expected, 0.9 * each.noise, random),
            "engine": got,
        }
        results.append(_candidate(each, expected, got, before, steps if stages else {}, layers, gates))
        evidence.append(_evidence(expected, got, steps if stages else {}))
    return ParityResult(
        figures=ParityFigures(
            data=pair_set.name,
            views=ALL,
            data_sha256="5d1f" * 16,
            pairs=len(pair_set),
            skipped=(Skipped(pair_set.pairs[0].ground.with_name("torn.png"), "truncated or corrupt"),),
            doubt=None,
            machine=Machine(architecture="x86_64", cpu_flags=("avx2", "avx512_vnni", "avx512f")),
            cores=2,
            packages={"geodtr-export": "0.1.0", "Python": "3.11.2", "onnxruntime": "1.23.2", "torch": "2.9.1"},
            reference=Reference(
                name="PyTorch",
                path="demo/run/last.safetensors",
                runs_by="torch",
                precision="fp32",
                recall=recall(before),
                median_margin=median_margin(before),
                speed=Speed(5639.0, 5201.0, 5720.0),
                bytes=2_800_000,
            ),
            fp32=candidates[0].name,
            candidates=tuple(results),
            require_certain=gates.require_certain,
            accept_undecided=gates.accept_undecided,
            verdict=together(*(each.gate.verdict for each in results)),
        ),
        evidence=Evidence(pair_set, before, tuple(evidence)),
    )


def _candidate(
    simulated: Simulated,
    expected: DescriptorPair,
    got: DescriptorPair,
    before: Ranking,
    steps: Mapping[StageName, DescriptorPair],
    layers: bool,
    gates: Gates,
) -> Candidate:
    own, queries, gallery = (pairing(name, before, after) for name, after in _rankings(expected, got).items())
    fp32 = simulated.precision == "fp32"
    branches = agreements(expected, got, {"ground": 0.0013, "aerial": None})
    stages = chain(expected, before, [described(name, "onnxruntime", step) for name, step in steps.items()], {})
    batches = (
        BatchInvariance("ground", (1, 3, 32), 1.0, 1.0, 7, 0, 0, not fp32),
        BatchInvariance("aerial", (1, 3, 32), 0.999999, 1.0, 7, 0, 0, not fp32),
    )
    audits = (
        BranchAudit(
            "ground",
            {"Conv": {"int8": 0 if fp32 else 12, "fp32": 14 if fp32 else 2}, "LayerNormalization": {"fp32": 4}},
            {} if fp32 else {"int8": 30, "fp32": 9},
            simulated.faults,
        ),
        BranchAudit("aerial", {"MatMul": {simulated.precision: 3}}, {}, (), simulated.unread),
    )
    return Candidate(
        name=simulated.name,
        path=f"demo/bundles/{simulated.name}",
        runs_by=simulated.runs_by,
        precision=simulated.precision,
        branches=branches,
        pairings=(own, queries, gallery),
        stages=stages,
        batches=batches,
        audit=audits,
        layers=_layers(simulated) if layers and not fp32 else (),
        speed=Speed(8376.0, 7900.0, 8500.0),
        times_reference=Ratio(median=1.49, lowest=1.4, highest=1.52),
        times_fp32=None if fp32 else Ratio(median=1.15, lowest=1.1, highest=1.2),
        bytes=1_800_000,
        gate=judge(
            Measured(branches, (own, queries, gallery), batches, audits, None, stages),
            replace(
                gates.limits(simulated.precision, None, None if fp32 else 0.99), least_cosine=0.99999 if fp32 else 0.95
            ),
        ),
        next_step=None,
    )


def _layers(simulated: Simulated) -> tuple[LayerAgreement, ...]:
    random = np.random.default_rng(7)
    layers = []
    for branch in BRANCHES:
        cosine = 1.0
        for node in range(60):
            before = cosine
            cosine -= simulated.noise**2 * float(random.exponential(0.02)) * (10 if node == 41 else 1)
            layers.append(
                LayerAgreement(
                    branch=branch,
                    node=f"/backbone/layer{node // 12}/block{node % 12}/conv/Conv_quantised",
                    kind="Conv",
                    block=f"backbone.layer{node // 12}",
                    precision=simulated.precision,
                    cosine=cosine,
                    inputs_cosine=before,
                    error=float(np.sqrt(2 - 2 * cosine)),
                )
            )
    return tuple(layers)


def _evidence(
    expected: DescriptorPair, got: DescriptorPair, steps: Mapping[StageName, DescriptorPair]
) -> CandidateEvidence:
    cosine: dict[Branch, NDArray[np.float32]] = {
        "ground": cosines(expected.ground, got.ground).astype(np.float32),
        "aerial": cosines(expected.aerial, got.aerial).astype(np.float32),
    }
    return CandidateEvidence(
        cosine, _rankings(expected, got), {name: _ranking(step, step) for name, step in steps.items()}
    )


def _rankings(expected: DescriptorPair, got: DescriptorPair) -> dict[PairingName, Ranking]:
    return {"own": _ranking(got, got), "queries": _ranking(got, expected), "gallery": _ranking(expected, got)}


def _ranking(queries: DescriptorPair, gallery: DescriptorPair) -> Ranking:
    return ranking(queries.pair_set, queries.ground, gallery.aerial)


def _disturbed(of: DescriptorPair, noise: float, random: np.random.Generator) -> DescriptorPair:
    ground, aerial = (
        _unit(rows + noise * np.exp(random.normal(0, 0.5, (len(rows), 1))) * _unit(random.normal(size=rows.shape)))
        for rows in (of.ground, of.aerial)
    )
    return replace(of, ground=ground, aerial=aerial)


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
