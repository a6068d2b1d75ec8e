"""What a parity run found: figures that go to JSON and tables, and beside them the evidence, query by query.

Values only: knows nothing of how they are measured, judged or shown. Shares are of 1, cosines from -1 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geodtr.export.build.batches import BatchInvariance
from geodtr.export.parity.measurements import (
    BranchAgreement,
    BranchAudit,
    LayerAgreement,
    Pairing,
    PairingName,
    Stage,
    StageName,
)
from geodtr.runtime.machine import Machine
from geodtr.runtime.manifest import Ratio, Speed
from geodtr.runtime.names import Branch, Precision, Verdict
from geodtr.runtime.recall import Ranking, Recall
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.views import Views

CheckName = Literal["recall", "cosine", "promise", "finite", "length", "batches", "preprocessing", "graph"]
"""What a gate looks at."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a gate looked at, and what it found, in a sentence with the measured and the allowed value.

    `accepted`: the pairs leave it undecided, and it passes because the user accepts that (Gates.accept_undecided).
    """

    name: CheckName
    verdict: Verdict
    words: str
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """The judgement of one candidate.

    `max_drop`: the share of queries by which R@1 may fall. `least_cosine` is asked of every descriptor,
    `promised_cosine` of 99 in 100, by the cosine that the build kept on its calibration images; None where it kept
    none. `pairing` is the worst way of searching: failed before undecided before passed, then the one that may have
    lost most. `drop` is its fall of R@1 (negative: a gain), `low` to `high` the 95 % interval.

    `certain`: in every way of searching the whole interval is within what is allowed; None where no drop is and the
    cosine of every image decides. `accepted`: recall is undecided, every measured drop is within `max_drop`, and the
    user accepts that. `pairs_to_decide`: about how many pairs would decide recall, if hits change at the same rate;
    None where it is decided, or no number would. `blamed`: the stage that lost what failed the gate; None where it did
    not fail or no stages were run. `reasons`: why the verdict is not passed, and what the pairs prove, in sentences.
    """

    max_drop: float
    least_cosine: float
    promised_cosine: float | None
    pairing: PairingName
    drop: float
    low: float
    high: float
    certain: bool | None
    accepted: bool
    pairs_to_decide: int | None
    checks: tuple[Check, ...]
    blamed: StageName | None
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def recall_is_open(self) -> bool:
        """Whether the pairs leave recall undecided, accepted or not."""
        recall = [check for check in self.checks if check.name == "recall"]
        return together(*(check.verdict for check in recall)) == "undecided" or self.accepted


@dataclass(frozen=True, slots=True)
class Reference:
    """The model that the others are held against, with its own queries in its own gallery."""

    name: str
    path: str
    runs_by: str
    precision: Precision
    recall: Recall
    median_margin: float
    speed: Speed
    bytes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One bundle, measured and judged.

    `branches` (ground, aerial) are the engine's descriptors against the reference's; `pairings` the three ways of
    searching, and "full" where it projects its descriptors. `stages`: empty where none were run; the last one is the
    engine. `layers`: empty unless asked for. `times_reference` and `times_fp32`: its speed against the reference's and
    against the run's first float32 candidate (ParityFigures.fp32), in the same interleaved rounds; the latter is None
    for a float32 engine. `bytes`: of its files. `next_step`: the command to run after a verdict that is not passed;
    None after one that is.
    """

    name: str
    path: str
    runs_by: str
    precision: Precision
    branches: tuple[BranchAgreement, BranchAgreement]
    pairings: tuple[Pairing, ...]
    stages: tuple[Stage, ...]
    batches: tuple[BatchInvariance, BatchInvariance]
    audit: tuple[BranchAudit, BranchAudit]
    layers: tuple[LayerAgreement, ...]
    speed: Speed
    times_reference: Ratio
    times_fp32: Ratio | None
    bytes: int
    gate: Gate
    next_step: str | None

    @property
    def own(self) -> Pairing:
        """Its own queries in its own gallery."""
        return self.pairings[0]

    @property
    def smallest_cosine(self) -> float:
        return min(branch.smallest_cosine for branch in self.branches)

    @property
    def mean_cosine(self) -> float:
        """Over the images of both branches."""
        images = sum(branch.images for branch in self.branches)
        return sum(branch.images * branch.mean_cosine for branch in self.branches) / images


@dataclass(frozen=True, slots=True)
class ParityFigures:
    """Everything that was measured and judged, without the rows: this is what --json prints.

    `data` is the SPEC, `views` what was seen of its panoramas; `data_sha256` covers its images, which belong
    together, and what was seen; `pairs` counts those that took part. `skipped` are files that could not be used, left
    out with their pairs. `doubt` is why the ground images may be none that the model was trained on. `machine`,
    `cores` and `packages` (versions, the interpreter's among them) are where it was run. `fp32` names whom
    `times_fp32` is held against: the first float32 candidate, or the reference. `verdict`: failed when one candidate
    failed, else undecided when one is, else passed. `require_certain` and `accept_undecided`: see Gates.
    """

    data: str
    views: Views
    data_sha256: str
    pairs: int
    skipped: tuple[Skipped, ...]
    doubt: str | None
    machine: Machine
    cores: int
    packages: dict[str, str]
    reference: Reference
    fp32: str
    candidates: tuple[Candidate, ...]
    require_certain: bool
    accept_undecided: bool
    verdict: Verdict

    @property
    def pairs_to_decide(self) -> int | None:
        """About how many pairs would decide recall for all candidates; accepted ones count as undecided. None where all
        are decided, or where no number would decide one of them.
        """
        open_ones = [each.gate for each in self.candidates if each.gate.recall_is_open]
        numbers = [gate.pairs_to_decide for gate in open_ones if gate.pairs_to_decide is not None]
        return max(numbers, default=None) if len(numbers) == len(open_ones) else None


@dataclass(frozen=True, slots=True, eq=False)
class CandidateEvidence:
    """One candidate's rows, in the order of `Evidence.pair_set`.

    `cosine`: float32, of each image's descriptor with the reference's, ground [Q] (a row a pair) and aerial [N] (a row
    a reference tile). `rankings`: by pairing, rank, ties, margin and nearest wrong tile of each query. `stages`: by
    stage, in their order, each with its own gallery.
    """

    cosine: Mapping[Branch, NDArray[np.float32]]
    rankings: Mapping[PairingName, Ranking]
    stages: Mapping[StageName, Ranking]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the figures are made of, for histograms, scatter plots and pictures: arrays, which do not go to JSON.

    Query i is `pair_set.pairs[i]`; tile numbers are rows of `pair_set.references`. `candidates` are in the figures'
    order.
    """

    pair_set: PairSet
    reference: Ranking
    candidates: tuple[CandidateEvidence, ...]

    def changed(self, ranking: Ranking) -> NDArray[np.int64]:
        """The queries whose tile in first place is another than the reference's, int64, rising."""
        return np.flatnonzero(first_tiles(self.reference) != first_tiles(ranking))


@dataclass(frozen=True, slots=True, eq=False)
class ParityResult:
    """A parity run: its figures, and the evidence that they were taken from."""

    figures: ParityFigures
    evidence: Evidence

    @property
    def verdict(self) -> Verdict:
        return self.figures.verdict

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self.figures.candidates


def together(*verdicts: Verdict) -> Verdict:
    """Failed when one of several is, else undecided when one is."""
    return "failed" if "failed" in verdicts else "undecided" if "undecided" in verdicts else "passed"


def first_tiles(ranking: Ranking) -> NDArray[np.int64]:
    """The tile in first place for each query, int64 [Q]: the nearest right one, or a wrong one that is nearer."""
    return np.where(ranking.rank == 0, ranking.right, ranking.wrong)
