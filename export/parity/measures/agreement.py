"""How near one model's descriptors are to another's, image by image: cosines, lengths, values that are no numbers."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geodtr.export.cosines import cosines, counted, finite_rows
from geodtr.export.graph.discrete import PatchAgreement
from geodtr.export.parity.measurements import BranchAgreement, Discrete
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.evaluation.evaluate import DescriptorPair

_LOW = 0.01


def agreements(
    expected: DescriptorPair, got: DescriptorPair, steps: Mapping[Branch, Discrete]
) -> tuple[BranchAgreement, BranchAgreement]:
    """Of both branches, ground first. `steps`: the discrete ones, measured on graphs elsewhere, by branch if known."""
    ground, aerial = (
        agreement(branch, cosines(expected[branch], got[branch]), got, steps.get(branch)) for branch in BRANCHES
    )
    return ground, aerial


def agreement(branch: Branch, cosine: NDArray[np.float64], pair: DescriptorPair, step: Discrete) -> BranchAgreement:
    """Sum up the `cosine` [N] of each row of `pair` with its counterpart, and how far the rows are from unit ones."""
    got = pair[branch]
    limited = counted(cosine, chooses=branch in pair.chooses)
    lengths = np.linalg.norm(got[finite_rows(got)], axis=1)
    return BranchAgreement(
        branch=branch,
        images=len(got),
        mean_cosine=float(cosine.mean()),
        low_cosine=float(np.quantile(limited, _LOW)),
        smallest_cosine=float(cosine.min()),
        norm_error=float(np.abs(lengths - 1).max(initial=0)),
        nan=int(np.isnan(got).any(axis=1).sum()),
        infinite=int(np.isinf(got).any(axis=1).sum()),
        counted_cosine=float(limited.min()),
        argmax_flips=step if isinstance(step, float) else None,
        patches=step if isinstance(step, PatchAgreement) else None,
    )
