"""Bilinear resizing without antialiasing, in integers: the same pixels on every machine.

Source: OpenCV's INTER_LINEAR_EXACT, with which Sample4Geo's images are prepared.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images

_ONE = 256
"""The weight of a whole pixel: 8 bits behind the point."""


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """Of N output pixels along one axis, the two source pixels that each lies between, and the weight of the second;
    [N] each. Beyond the first and the last pixel the weight is 0.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    weight: NDArray[np.int32]


def resize_linear_exact(image: Images, height: int, width: int) -> Images:
    """uint8 [h, w, 3] -> uint8 [height, width, 3], half a level rounded up: OpenCV's own pixels."""
    across, down = _neighbours(image.shape[1], width), _neighbours(image.shape[0], height)
    # Rows that no output pixel reads are not resized.
    used, rows = np.unique(np.concatenate([down.first, down.second]), return_inverse=True)
    lines = image[used].astype(np.int32)
    lines = _mix(lines[:, across.first], lines[:, across.second], across.weight[None, :, None])
    first, second = np.split(rows, 2)
    mixed = _mix(lines[first], lines[second], down.weight[:, None, None])
    return ((mixed + _ONE**2 // 2) >> 16).astype(np.uint8)


def _mix(first: NDArray[np.int32], second: NDArray[np.int32], weight: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.asarray(first * (_ONE - weight) + second * weight, np.int32)


@lru_cache(maxsize=16)
def _neighbours(source: int, size: int) -> _Neighbours:
    place = (np.arange(size) + 0.5) * source / size - 0.5
    first = np.floor(place).astype(np.intp)
    weight = np.rint((place - first) * _ONE).astype(np.int32)
    weight[(first < 0) | (first >= source - 1)] = 0
    first = np.clip(first, 0, source - 1)
    return _Neighbours(first, np.minimum(first + 1, source - 1), weight)
