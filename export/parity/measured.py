"""Parity: is an engine as good as the PyTorch model? Measured on pairs, judged by the drop in R@1."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

import msgspec
import numpy as np

from geodtr.export.model import Model
from geodtr.export.timing import Speed, Timing, time_pairs
from geodtr.runtime.errors import BundleError, DataError
from geodtr.runtime.files import hash_files
from geodtr.runtime.manifest import ParityEntry, Ratio, read_manifest, write_manifest
from geodtr.runtime.names import BRANCHES, Precision
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import Recall, recall
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.evaluate import DescriptorPair, embed_pairs

ALLOWED_DROP: dict[Precision, float] = {"fp32": 0.0, "fp16": 0.001, "int8": 0.005, "fp8": 0.005, "mixed": 0.005}
"""Largest share of queries that an engine may find less often at rank 1 than the reference; a bundle whose blocks were
chosen by recall has its own tolerance.
"""
SMALLEST_COSINE: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98, "fp8": 0.95, "mixed": 0.95}
"""A floor under every single descriptor: on few pairs recall alone would let a broken engine pass."""
_SPEED_BATCH = 32
_SPEED_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine measured against the reference.

    `changed` counts the queries whose own rank differs, in either direction: a mean hides them.
    `allowed_lost` is the number of hits at rank 1 that the engine may lose on this many queries, `least_cosine` what
    `smallest_cosine` must be.
    `times_fp32` is its speed against the report's `fp32`, in the same rounds; None for a float32 engine.
    """

    name: str
    precision: Precision
    recall: Recall
    mean_cosine: float
    smallest_cosine: float
    least_cosine: float
    changed: int
    lost: int
    allowed_lost: int
    speed: Speed
    times_fp32: Ratio | None
    bytes: int
    passed: bool


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The reference, its candidates, and the data that they were measured on. `passed` when every candidate did.

    `skipped` are the data set's files that could not be used: their pairs took no part. `fp32` names whom the others'
    speed is held against: the first float32 candidate, or the reference where there is none.
    """

    data: str
    data_sha256: str
    skipped: tuple[Skipped, ...]
    reference: str
    reference_recall: Recall
    reference_speed: Speed
    reference_bytes: int
    fp32: str
    candidates: tuple[Candidate, ...]
    passed: bool


def compare(
    reference: Model, candidates: Sequence[Model], pair_set: PairSet, *, track: Track = untracked
) -> ParityReport:
    """Embed `pair_set` with every model, rank with each model's own gallery, and judge each candidate.

    Raises BundleError when a candidate was made from another checkpoint, DataError when there are fewer than two pairs.
    """
    if len(pair_set) < 2:
        raise DataError(f"{pair_set.name} holds one pair; recall needs at least two.")
    for candidate in candidates:
        if candidate.embedding_id != reference.embedding_id:
            raise BundleError(
                f"{candidate.name} was made from another checkpoint (embedding id {candidate.embedding_id}) than "
                f"{reference.name} ({reference.embedding_id}). Build it from this one: geodtr-export build-engine"
            )
    models = (reference, *candidates)
    expected = embed_pairs(reference.embedders, pair_set, track=track)
    timings = time_pairs([model.embedders for model in models], _SPEED_BATCH, rounds=_SPEED_ROUNDS, track=track)
    fp32 = next((row for row, candidate in enumerate(candidates, 1) if candidate.precision == "fp32"), 0)
    judged = tuple(
        judge(model, timing, timings[fp32], expected, embed_pairs(model.embedders, pair_set, track=track))
        for model, timing in zip(candidates, timings[1:], strict=True)
    )
    return ParityReport(
        data=pair_set.name,
        data_sha256=hash_files(path for branch in BRANCHES for path in expected.pair_set.images(branch)),
        skipped=expected.pair_set.skipped,
        reference=reference.name,
        reference_recall=recall(expected.ranking()),
        reference_speed=timings[0].speed,
        reference_bytes=reference.bytes,
        fp32=models[fp32].name,
        candidates=judged,
        passed=all(candidate.passed for candidate in judged),
    )


def judge(model: Model, timing: Timing, fp32: Timing, expected: DescriptorPair, got: DescriptorPair) -> Candidate:
    """Compare a candidate's descriptors with the reference's and apply the gate of its precision."""
    before, after = expected.ranking(), got.ranking()
    cosine = np.concatenate(
        [np.sum(expected.ground * got.ground, axis=1), np.sum(expected.aerial * got.aerial, axis=1)]
    )
    lost = int(np.count_nonzero(before.rank == 0)) - int(np.count_nonzero(after.rank == 0))
    allowed, least = allowed_lost(model.precision, len(before.rank), model.tolerance), SMALLEST_COSINE[model.precision]
    # Written so that a NaN fails: every comparison with it is false.
    passed = lost <= allowed and bool(cosine.min() >= least)
    return Candidate(
        name=model.name,
        precision=model.precision,
        recall=recall(after),
        mean_cosine=float(cosine.mean()),
        smallest_cosine=float(cosine.min()),
        least_cosine=least,
        changed=int(np.count_nonzero(before.rank != after.rank)),
        lost=lost,
        allowed_lost=allowed,
        speed=timing.speed,
        times_fp32=None if model.precision == "fp32" else timing.ratio(fp32),
        bytes=model.bytes,
        passed=passed,
    )


def allowed_lost(precision: Precision, queries: int, tolerance: float | None = None) -> int:
    """How many hits at rank 1 may be lost: none for fp32; otherwise the tolerance, but never less than one query.

    `tolerance`: in points, of a bundle that has its own.
    """
    drop = ALLOWED_DROP[precision] if tolerance is None else tolerance / 100
    return max(1, floor(drop * queries + 1e-9)) if drop else 0


def record(report: ParityReport, candidate: Candidate, bundle: Path) -> None:
    """Write a verdict into the bundle's manifest, in place of an earlier one by the same reference on the same data."""
    manifest = read_manifest(bundle)
    entry = ParityEntry(
        reference=report.reference,
        data=report.data,
        data_sha256=report.data_sha256,
        pairs=candidate.recall.queries,
        reference_at_1=report.reference_recall.at_1,
        at_1=candidate.recall.at_1,
        smallest_cosine=candidate.smallest_cosine,
        passed=candidate.passed,
    )
    others = tuple(
        old for old in manifest.parity if (old.data_sha256, old.reference) != (entry.data_sha256, entry.reference)
    )
    write_manifest(bundle, msgspec.structs.replace(manifest, parity=(*others, entry)))
