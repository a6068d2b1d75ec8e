"""How far the nearest references are from the query, for data sets whose papers measure retrieval by distance."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from geodtr.training.data.counting import Counting
from geodtr.training.data.spec import KINDS
from geodtr.training.evaluation.evaluate import DescriptorPair

KS = (1, 3, 5, 10)
_DECAY = {"degrees": 5e3, "metres": 1e-3}
"""Per unit of distance: of DenseUAV and of GTA-UAV."""


@dataclass(frozen=True, slots=True)
class Distance:
    """SDM@K by K, each between 0 and 1, and the mean distance of the nearest reference in metres, where positions are.

    A query's SDM@K is the mean of exp(-decay d_i) over its K nearest references, the i-th weighted by K + 1 - i.
    Source: Dai et al. (DenseUAV), TIP 2024; Ji et al. (GTA-UAV), AAAI 2025, which gives Dis@1 as well.
    """

    sdm: dict[int, float]
    metres_at_1: float | None


def measure_distance(descriptors: DescriptorPair, counting: Counting, kind: str) -> Distance | None:
    """The distances of the rankings that `counting` counts; None where papers on such data report none, or the set
    does not give the position of every image.
    """
    pair_set = descriptors.pair_set
    unit: Literal["degrees", "metres", ""] = KINDS[kind].positions_in
    grounds, tiles = pair_set.paths("ground"), pair_set.references
    if not unit or any(path not in pair_set.positions for path in (*grounds, *tiles)):
        return None
    at = {
        "ground": np.array([pair_set.positions[path] for path in grounds]),
        "aerial": np.array([pair_set.positions[path] for path in tiles]),
    }
    queries, references, *_ = descriptors.ranked(counting)
    ks = [k for k in KS if k <= len(references)]
    hits = descriptors.nearest(counting, queries, ks[-1]).rows
    here, there = at[counting.queries][counting.rows], at["aerial" if counting.queries == "ground" else "ground"]
    distances = np.linalg.norm(there[hits] - here[:, None], axis=2)
    near = np.exp(-_DECAY[unit] * distances)
    sdm = {k: float(np.average(near[:, :k], axis=1, weights=np.arange(k, 0, -1)).mean()) for k in ks}
    return Distance(sdm, float(distances[:, 0].mean()) if unit == "metres" else None)
