"""Resizing by area: each output pixel is the mean of the source area that it covers.

Source: what OpenCV's INTER_AREA computes when it shrinks, with which CVACT's panoramas are prepared in SAFA and GeoDTR.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images


@dataclass(frozen=True, slots=True)
class _Coverage:
    """Which source pixels each of N output pixels covers, and the share of it that each fills; [K, N] each.

    K is the most that any covers; the rest is filled up with weight 0.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float32]


def resize_area(image: Images, height: int, width: int) -> Images:
    """uint8 [h, w, 3] -> uint8 [height, width, 3], rounded to the nearest level, half a level to the even one.

    OpenCV's own pixels when neither side grows. At exactly half the size it rounds half a level up, and so does this.
    """
    if image.shape[:2] == (2 * height, 2 * width):
        upper, lower = image[0::2].astype(np.uint16), image[1::2].astype(np.uint16)
        rows = upper + lower
        return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    # Columns first, and sums in float32 in rising order, as OpenCV adds them: half levels then round alike.
    columns = _shrink(image.transpose(1, 0, 2), width)
    return np.rint(_shrink(columns.transpose(1, 0, 2), height)).astype(np.uint8)


def _shrink(image: NDArray[np.uint8] | NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """[n, m, 3] -> [size, m, 3]: the weighted mean along the first axis."""
    coverage = _coverage(len(image), size)
    total = np.zeros((size, *image.shape[1:]), np.float32)
    for index, weight in zip(coverage.index, coverage.weight, strict=True):
        total += weight[:, None, None] * image[index]
    return total


@lru_cache(maxsize=16)
def _coverage(source: int, size: int) -> _Coverage:
    edges = np.arange(size + 1) * (source / size)
    edges[-1] = source
    start, stop = edges[:-1], edges[1:]
    first = np.floor(start).astype(np.intp)
    index = first + np.arange(int((np.ceil(stop) - first).max()))[:, None]
    covered = np.minimum(index + 1, stop) - np.maximum(index, start)
    weight = np.maximum(covered, 0) / (stop - start)
    return _Coverage(np.minimum(index, source - 1), weight.astype(np.float32))
