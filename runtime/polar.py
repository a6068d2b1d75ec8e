"""The polar transform: a square north-up aerial tile unrolled around its centre, to look like a panorama.

Source: SAFA (Shi et al., NeurIPS 2019), equation 1, with the column convention of its release, which GeoDTR uses.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ImageError
from geodtr.runtime.spec import Images

_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class _Sampling:
    """Where each of the N output pixels reads, and how it weighs what it reads; [N] each.

    `indices` are those of the first channel of the upper left, lower left, upper right and lower right neighbour in the
    flattened padded tile. Weights are float64: a truncated result shows the last bit.
    """

    indices: tuple[NDArray[np.intp], ...]
    up: NDArray[np.float64]
    down: NDArray[np.float64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]


def polar_transform(tile: Images, height: int, width: int) -> Images:
    """Unroll `tile` (uint8 [S, S, 3], north up) to uint8 [height, width, 3].

    Column 0 looks south, width/4 west, width/2 north, 3*width/4 east; row 0 is the outer radius S/2, the last row the
    centre. Bilinear, zero outside the tile, truncated to integers as the published transform does.
    Raises ImageError when the tile is not square.
    """
    side, columns, _ = tile.shape
    if side != columns:
        raise ImageError(
            f"The polar transform needs a square tile, this one is {columns}x{side} pixels. Crop it first."
        )
    sampling = _sampling(side, height, width)
    # One zero pixel on every side stands for everything outside the tile.
    flat = np.pad(tile, ((1, 1), (1, 1), (0, 0))).reshape(-1)
    unrolled = np.empty((height * width, _CHANNELS), np.uint8)
    # One channel at a time: with the three of a pixel innermost, NumPy's loops are three steps long and all overhead.
    for channel in range(_CHANNELS):
        upper_left, lower_left, upper_right, lower_right = (flat[channel:].take(index) for index in sampling.indices)
        left = sampling.up * upper_left + sampling.down * lower_left
        right = sampling.up * upper_right + sampling.down * lower_right
        unrolled[:, channel] = sampling.left * left + sampling.right * right
    return unrolled.reshape(height, width, _CHANNELS)


def sampled_points(side: int, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column, counted from the middle of the tile's first pixel, that output pixels show: [height, width]."""
    i = np.arange(height, dtype=np.float64)[:, None]
    angle = 2 * np.pi * np.arange(width)[None, :] / width
    radius = side / 2 / height * (height - 1 - i)
    row: NDArray[np.float64] = side / 2 + radius * np.cos(angle)
    column: NDArray[np.float64] = side / 2 - radius * np.sin(angle)
    return row, column


@lru_cache(maxsize=8)
def _sampling(side: int, height: int, width: int) -> _Sampling:
    row, column = sampled_points(side, height, width)
    top, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)

    def index(r: NDArray[np.intp], c: NDArray[np.intp]) -> NDArray[np.intp]:
        padded = np.clip(r + 1, 0, side + 1) * (side + 2) + np.clip(c + 1, 0, side + 1)
        return _CHANNELS * padded.ravel()

    down, right = (row - top).ravel(), (column - left).ravel()
    return _Sampling(
        indices=(index(top, left), index(top + 1, left), index(top, left + 1), index(top + 1, left + 1)),
        up=1 - down,
        down=down,
        left=1 - right,
        right=right,
    )
