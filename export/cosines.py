"""Cosines between rows of descriptors that may not be finite, and are not taken for unit rows."""

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Descriptors


def cosines(expected: Descriptors, got: Descriptors) -> NDArray[np.float64]:
    """Of each row with its counterpart, whatever their lengths, float64 [N]; 0 where a row is not finite, or zero.

    Sums are in float64: of 4,096 products, float32 would lose the digits that a cosine near 1 is told by.
    """
    usable = finite_rows(expected) & finite_rows(got)
    one, other = expected, got
    if not usable.all():
        one, other = (np.where(usable[:, None], rows, np.float32(0)) for rows in (expected, got))
    product = np.einsum("nd,nd->n", one, other, dtype=np.float64)
    lengths = np.linalg.norm(one, axis=1).astype(np.float64) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float64] = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return found


def finite_rows(rows: Descriptors) -> NDArray[np.bool_]:
    """Which rows hold numbers alone, bool [N]."""
    return np.asarray(np.isfinite(rows).all(axis=1))
