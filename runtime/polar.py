"""The polar transform: a square north-up aerial tile unrolled around its centre, to look like a panorama.

Source: SAFA (Shi et al., NeurIPS 2019), equation 1, with the column convention of its release, which GeoDTR uses.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ImageError
from geodtr.runtime.spec import Images


@dataclass(frozen=True, slots=True)
class _Sampling:
    """Where each output pixel reads: flat indices of its four neighbours in the padded tile, and their weights."""

    indices: tuple[NDArray[np.intp], ...]
    row_weight: NDArray[np.float64]
    column_weight: NDArray[np.float64]


def polar_transform(tile: Images, height: int, width: int) -> Images:
    """Unroll `tile` (uint8 [S, S, 3], north up) to uint8 [height, width, 3].

    Column 0 looks south, width/4 west, width/2 north, 3*width/4 east; row 0 is the outer radius S/2, the last row the
    centre. Bilinear, zero outside the tile, truncated to integers as the published transform does.
    Raises ImageError when the tile is not square.
    """
    side, columns, channels = tile.shape
    if side != columns:
        raise ImageError(
            f"The polar transform needs a square tile, this one is {columns}x{side} pixels. Crop it first."
        )
    sampling = _sampling(side, height, width)
    # One zero pixel on every side stands for everything outside the tile.
    padded = np.zeros((side + 2, side + 2, channels), np.uint8)
    padded[1:-1, 1:-1] = tile
    pixels = padded.reshape(-1, channels)
    upper_left, lower_left, upper_right, lower_right = (pixels[index] for index in sampling.indices)
    down, right = sampling.row_weight, sampling.column_weight
    left = (1 - down) * upper_left + down * lower_left
    return ((1 - right) * left + right * ((1 - down) * upper_right + down * lower_right)).astype(np.uint8)


@lru_cache(maxsize=8)
def _sampling(side: int, height: int, width: int) -> _Sampling:
    i = np.arange(height)[:, None]
    angle = 2 * np.pi * np.arange(width)[None, :] / width
    radius = side / 2 / height * (height - 1 - i)
    row, column = side / 2 + radius * np.cos(angle), side / 2 - radius * np.sin(angle)
    top, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)

    def index(r: NDArray[np.intp], c: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.clip(r + 1, 0, side + 1) * (side + 2) + np.clip(c + 1, 0, side + 1)

    return _Sampling(
        indices=(index(top, left), index(top + 1, left), index(top, left + 1), index(top + 1, left + 1)),
        row_weight=(row - top)[..., None],
        column_weight=(column - left)[..., None],
    )
