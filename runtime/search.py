"""Exact nearest references by cosine similarity, in blocks of bounded memory.

Knows descriptors and row numbers; knows nothing of images or places.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Descriptors

_BLOCK_SCORES = 1 << 24


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest references of each query, best first: `rows` int64 [Q, K], `scores` float32 [Q, K] (cosine)."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


def search(queries: Descriptors, references: Descriptors, top: int) -> Hits:
    """The `top` references with the largest cosine to each query; which of several equal ones comes first is not said.

    queries [Q, D], references [N, D], unit rows; where N is less than `top`, all N are returned.
    Raises ValueError when `top` is less than 1.
    """
    if top < 1:
        raise ValueError(f"top is {top}; at least one reference must be asked for.")
    top = min(top, len(references))
    rows = np.empty((len(queries), top), np.int64)
    scores = np.empty((len(queries), top), np.float32)
    block = max(1, _BLOCK_SCORES // max(1, len(references)))
    for start in range(0, len(queries), block):
        part = slice(start, min(start + block, len(queries)))
        similarity = queries[part] @ references.T
        candidates = np.sort(np.argpartition(similarity, -top, axis=1)[:, -top:], axis=1)
        found = np.take_along_axis(similarity, candidates, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        rows[part] = np.take_along_axis(candidates, order, axis=1)
        scores[part] = np.take_along_axis(found, order, axis=1)
    return Hits(rows, scores)
