"""What parity measures: how near descriptors are, how recall changes, and the precision of what computes them.

Values only: knows nothing of how they are measured, judged or shown. Shares are of 1, cosines from -1 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import acos, degrees
from typing import Literal

from geodtr.export.graph.discrete import PatchAgreement
from geodtr.runtime.names import Branch
from geodtr.runtime.recall import Recall

StageName = Literal["onnx", "typed", "engine"]
"""The steps from the reference model to the engine: its float32 ONNX file, the candidate's typed ONNX file, both
computed by ONNX Runtime node by node without fusion, and the engine itself."""

PairingName = Literal["own", "queries", "gallery", "full"]
"""Which model's queries search which model's gallery. own: both the candidate's. queries: the candidate's queries
search the reference's gallery, as on a vehicle whose map was built elsewhere. gallery: the reverse.

A candidate that projects its descriptors is held against the reference's, projected by the same projection in float64.
full: both the candidate's, held against the reference's as they are, before the projection."""
PAIRINGS: Mapping[PairingName, str] = {
    "own": "own queries, own gallery",
    "queries": "own queries, the reference's gallery",
    "gallery": "the reference's queries, own gallery",
    "full": "own queries, own gallery, against descriptors that are not projected",
}


Discrete = float | PatchAgreement | None
"""How the discrete step of two graphs agrees: an arg-max by the share that flips, or a choice of patches."""


@dataclass(frozen=True, slots=True)
class BranchAgreement:
    """How near one branch's descriptors are to another model's, image by image.

    An image of which a descriptor is not finite counts with cosine 0. `norm_error` is the largest distance of a finite
    descriptor's length from 1. `nan` and `infinite` count descriptors that hold such a value. `counted_cosine` is the
    smallest that a limit is for, and `low_cosine` their 1 % quantile: one image in a hundred is farther off. Both leave
    out some images of a network that chooses patches (see `counted`). `argmax_flips` is the share of positions
    where another channel wins the saliency's arg-max, and `patches` how the choice of patches agrees, on the first
    images; None where the two are not both ONNX graphs, or have no such step.
    """

    branch: Branch
    images: int
    mean_cosine: float
    low_cosine: float
    smallest_cosine: float
    norm_error: float
    nan: int
    infinite: int
    counted_cosine: float
    argmax_flips: float | None = None
    patches: PatchAgreement | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Recall at one K `before` (the reference) and `after` (the candidate), on the same queries.

    `name` is R@1, R@5, R@10 or R@1%; `k` the number of references that it looks at. `lost` hits went, `gained` came;
    only these queries tell anything. `change` = after - before; 95 % confidence puts it between `low` and `high`
    (Tango's score interval for paired shares). `p_value`: how often chance alone, with engines equally good, would give
    counts as uneven as these or more so (McNemar's exact test); 1 where nothing changed.
    """

    name: str
    k: int
    before: float
    after: float
    lost: int
    gained: int
    change: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Pairing:
    """One way of searching, held against the reference's queries in the reference's gallery.

    `changes`: R@1, R@5, R@10, R@1%, in this order. `moved` queries have another rank than before, in either direction;
    `other_answer` another tile in first place (which may be as wrong as before). `median_margin`: how much closer the
    right tile is than the nearest wrong one, in cosine, for the middle query; negative where that is a miss.
    """

    name: PairingName
    recall: Recall
    changes: tuple[Change, ...]
    moved: int
    other_answer: int
    median_margin: float

    @property
    def at_1(self) -> Change:
        return self.changes[0]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step on the way from the reference to the engine, so that a loss is blamed on the step that made it.

    `from_reference` and `from_previous` (which for the first stage are the same) hold ground and aerial; `change` and
    `step` are R@1 against the reference and against the previous stage, each searching its own gallery.
    """

    name: StageName
    runs_by: str
    recall: Recall
    from_reference: tuple[BranchAgreement, BranchAgreement]
    from_previous: tuple[BranchAgreement, BranchAgreement]
    change: Change
    step: Change


@dataclass(frozen=True, slots=True)
class BranchAudit:
    """The real precision of each operator and layer.

    `operators`: by kind (Conv, MatMul, LayerNormalization, ...), the number that the typed graph computes in int8, fp8,
    fp16 and fp32, from tensor types and Q/DQ nodes. `layers`: the backend's report on the compiled engine; empty if it
    gives none. `faults`: contradictions to the precision, in words. `unread`: why the graph was not read; None if it
    was.
    """

    branch: Branch
    operators: dict[str, dict[str, int]]
    layers: dict[str, int]
    faults: tuple[str, ...]
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class LayerAgreement:
    """One node's output in the typed graph, held against the float32 graph's on the first images (--layers).

    In the graph's order. `block` is the network's part that it stands in, where it has weights. `precision` as in the
    audit. `cosine` is the smallest over the images; `inputs_cosine` the smallest of what the node reads. `error`:
    length of the difference by the length of the float32 output, mean.
    """

    branch: Branch
    node: str
    kind: str
    block: str
    precision: str
    cosine: float
    inputs_cosine: float
    error: float

    @property
    def turn(self) -> float:
        """By how many degrees the node turns its output further than its inputs were."""
        return _degrees(self.cosine) - _degrees(self.inputs_cosine)


def _degrees(cosine: float) -> float:
    return degrees(acos(min(max(cosine, -1.0), 1.0)))
