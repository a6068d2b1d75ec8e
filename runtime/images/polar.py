"""The polar transform: it maps a square north-up aerial tile to an image that looks like a panorama.

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
    """Source pixels and bilinear weights for each of the N output pixels; [N] each.

    `indices` point to the upper left, lower left, upper right and lower right neighbour among the tile's pixels; a
    neighbour outside the tile has weight 0. Weights are float64: a truncated result shows the last bit.
    """

    indices: tuple[NDArray[np.intp], ...]
    up: NDArray[np.float64]
    down: NDArray[np.float64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]


def polar_transform(tile: Images, height: int, width: int, *, stretch: bool = False) -> Images:
    """Transform `tile` (uint8 RGB [S, S, 3], or [S, S, 4] with an unused byte, north up) to uint8 RGB
    [height, width, 3].

    Column 0 looks south, width/4 west, width/2 north, 3*width/4 east; row 0 is the outer radius S/2, the last row the
    centre. Bilinear, zero outside the tile, truncated to integers like the published transform; with `stretch`, the
    image's least level becomes 0 and its largest 255, rounded.
    Raises ImageError when the tile is not square.
    """
    side, columns, channels = tile.shape
    if side != columns:
        raise ImageError(
            f"The polar transform needs a square tile, this one is {columns}x{side} pixels. Crop it first."
        )
    sampling = _sampling(side, height, width)
    # A pixel of four bytes is one word to fetch.
    words = np.ascontiguousarray(tile if channels == 4 else _widened(tile)).view(np.uint32).reshape(-1)
    read = [words.take(index).view(np.uint8).reshape(-1, 4) for index in sampling.indices]
    polar = np.empty((height * width, _CHANNELS), np.float64 if stretch else np.uint8)
    # One channel at a time: with the three of a pixel innermost, NumPy's loops are three steps long and all overhead.
    for channel in range(_CHANNELS):
        upper_left, lower_left, upper_right, lower_right = (pixels[:, channel] for pixels in read)
        left = sampling.up * upper_left + sampling.down * lower_left
        right = sampling.up * upper_right + sampling.down * lower_right
        polar[:, channel] = sampling.left * left + sampling.right * right
    return (_stretched(polar) if stretch else polar).reshape(height, width, _CHANNELS)


def _stretched(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """As scipy.misc.imsave wrote floating-point images, until SciPy 1.2; one level alone becomes 0."""
    least, largest = levels.min(), levels.max()
    factor = 255 / (largest - least) if largest > least else 0.0
    return np.asarray(np.floor((levels - least) * factor + 0.5), np.uint8)


def sampled_points(side: int, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column in the tile that each output pixel samples, from the first pixel's centre: [height, width]."""
    i = np.arange(height, dtype=np.float64)[:, None]
    angle = 2 * np.pi * np.arange(width)[None, :] / width
    radius = side / 2 / height * (height - 1 - i)
    row: NDArray[np.float64] = side / 2 + radius * np.cos(angle)
    column: NDArray[np.float64] = side / 2 - radius * np.sin(angle)
    return row, column


@lru_cache(maxsize=8)
def _sampling(side: int, height: int, width: int) -> _Sampling:
    row, column = (points.ravel() for points in sampled_points(side, height, width))
    top, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)

    def index(r: NDArray[np.intp], c: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.clip(r, 0, side - 1) * side + np.clip(c, 0, side - 1)

    def inside(line: NDArray[np.intp]) -> NDArray[np.bool_]:
        return (line >= 0) & (line < side)

    return _Sampling(
        indices=(index(top, left), index(top + 1, left), index(top, left + 1), index(top + 1, left + 1)),
        up=(1 - (row - top)) * inside(top),
        down=(row - top) * inside(top + 1),
        left=(1 - (column - left)) * inside(left),
        right=(column - left) * inside(left + 1),
    )


def _widened(tile: Images) -> Images:
    """[S, S, 3] -> [S, S, 4]."""
    wide = np.zeros((*tile.shape[:2], 4), np.uint8)
    for channel in range(_CHANNELS):
        wide[..., channel] = tile[..., channel]
    return wide
