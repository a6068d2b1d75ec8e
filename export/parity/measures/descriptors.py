"""Comparison of two models' descriptors of the same images: cosines, and recall by pairing of queries and gallery.

A run computes nothing else for a candidate beyond embedding and timing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.export.cosines import cosines
from geodtr.export.parity.measurements import BranchAgreement, Discrete, Pairing, PairingName
from geodtr.export.parity.measures.agreement import agreement
from geodtr.export.parity.measures.pairings import pairing, ranking
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.recall import Ranking
from geodtr.training.evaluation.evaluate import DescriptorPair


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """The figures of a candidate's descriptors, and the rows that they are of (see CandidateEvidence)."""

    branches: tuple[BranchAgreement, BranchAgreement]
    pairings: tuple[Pairing, ...]
    cosine: Mapping[Branch, NDArray[np.float32]]
    rankings: Mapping[PairingName, Ranking]


def compare_descriptors(
    before: DescriptorPair,
    before_ranking: Ranking,
    after: DescriptorPair,
    after_ranking: Ranking,
    steps: Mapping[Branch, Discrete],
) -> Compared:
    """Compare `after` with `before`, the reference's; each ranking is for the model's own queries in its own gallery.

    `steps`: how the discrete step of each branch agrees, where known.
    """
    pair_set = before.pair_set
    rankings: dict[PairingName, Ranking] = {
        "own": after_ranking,
        "queries": ranking(pair_set, after.ground, before.aerial, before.scorer),
        "gallery": ranking(pair_set, before.ground, after.aerial, before.scorer),
    }
    own, queries, gallery = (pairing(name, before_ranking, rankings[name]) for name in rankings)
    cosine = {branch: cosines(before[branch], after[branch]) for branch in BRANCHES}
    ground, aerial = (agreement(branch, cosine[branch], after, steps.get(branch)) for branch in BRANCHES)
    return Compared(
        branches=(ground, aerial),
        pairings=(own, queries, gallery),
        cosine={branch: rows.astype(np.float32) for branch, rows in cosine.items()},
        rankings=rankings,
    )
