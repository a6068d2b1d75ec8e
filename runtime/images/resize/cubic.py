"""Bicubic resizing without antialiasing, in integers: the same pixels on every machine.

Source: OpenCV's INTER_CUBIC of 8-bit images (a = -0.75, 11 bits behind the point), which prepares CDE's images.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images

_A = -0.75
_BITS = 11


def resize_cubic(image: Images, height: int, width: int) -> Images:
    """uint8 [h, w, 3] -> uint8 [height, width, 3], clipped to 0 to 255."""
    across, horizontal = _taps(image.shape[1], width)
    down, vertical = _taps(image.shape[0], height)
    # Rows that no output pixel reads are not resized.
    used, rows = np.unique(down, return_inverse=True)
    lines = image[used].astype(np.int32)
    lines = sum(lines[:, across[tap]] * horizontal[tap][None, :, None] for tap in range(4))
    rows = rows.reshape(down.shape)
    mixed = sum(lines[rows[tap]].astype(np.int64) * vertical[tap][:, None, None] for tap in range(4))
    return np.asarray(np.clip((mixed + (1 << (2 * _BITS - 1))) >> (2 * _BITS), 0, 255), np.uint8)


@lru_cache(maxsize=16)
def _taps(source: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Of N output pixels along one axis, four source pixels each and their weights in 2048ths, [4, N] both; the first
    and the last pixel stand for those beyond them.
    """
    place = (np.arange(size) + 0.5) * source / size - 0.5
    first = np.floor(place)
    x = place - first
    weights = np.empty((4, size))
    weights[0] = ((_A * (x + 1) - 5 * _A) * (x + 1) + 8 * _A) * (x + 1) - 4 * _A
    weights[1] = ((_A + 2) * x - (_A + 3)) * x * x + 1
    weights[2] = ((_A + 2) * (1 - x) - (_A + 3)) * (1 - x) * (1 - x) + 1
    weights[3] = 1 - weights[:3].sum(axis=0)
    pixels = first.astype(np.intp) + np.arange(-1, 3)[:, None]
    return np.clip(pixels, 0, source - 1), np.rint(weights * (1 << _BITS)).astype(np.int32)
