"""Cosines between rows of descriptors that may not be finite or of unit length."""

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Descriptors

_LEAST_EXCHANGED = 0.98
_IMAGES_OF_ONE = 5
"""Of so many images, one may have other patches."""


def cosines(expected: Descriptors, got: Descriptors) -> NDArray[np.float64]:
    """The cosine of each row with its counterpart, for any lengths, float64 [N]; 0 where a row is zero or not finite.

    Sums are in float64: over 4,096 products, float32 would lose the digits that distinguish cosines near 1.
    """
    usable = finite_rows(expected) & finite_rows(got)
    one, other = expected, got
    if not usable.all():
        one, other = (np.where(usable[:, None], rows, np.float32(0)) for rows in (expected, got))
    product = np.einsum("nd,nd->n", one, other, dtype=np.float64)
    lengths = np.linalg.norm(one, axis=1).astype(np.float64) * np.linalg.norm(other, axis=1)
    result: NDArray[np.float64] = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return result


def counted(cosine: NDArray[np.float64], *, chooses: bool) -> NDArray[np.float64]:
    """The cosines that limits are for, at least one, of all [N] between a network's rows and another engine's, in
    rising order.

    Where the network `chooses` patches, one image in five does not count, of fewer than five none, as long as all keep
    0.98: a rounding exchanges patches of almost equal attention, and neither choice is wrong.
    """
    exchanged = chooses and cosine.min() >= _LEAST_EXCHANGED
    return np.sort(cosine)[len(cosine) // _IMAGES_OF_ONE if exchanged else 0 :]


def finite_rows(rows: Descriptors) -> NDArray[np.bool_]:
    """Which rows hold numbers alone, bool [N]."""
    return np.asarray(np.isfinite(rows).all(axis=1))
