"""Resizing in NumPy, the same pixels on every machine: by area, bilinear and bicubic, each as OpenCV computes it.

Each returns uint8 [height, width, 3] of an image, uint8 [h, w, 3].
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images

_ONE = 256
"""The weight of a whole pixel in `resize_linear_exact`: 8 bits behind the point."""
_A = -0.75
_BITS = 11


def resize_area(image: Images, height: int, width: int) -> Images:
    """The mean of the source area that each pixel covers, rounded to the nearest level, half a level to the even one.

    Source: OpenCV's INTER_AREA, with which CVACT's panoramas are prepared in SAFA and GeoDTR; its own pixels when
    neither side grows. At exactly half the size it rounds half a level up, and so does this.
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
    total = np.zeros((size, *image.shape[1:]), np.float32)
    for index, weight in zip(*_coverage(len(image), size), strict=True):
        total += weight[:, None, None] * image[index]
    return total


@lru_cache(maxsize=16)
def _coverage(source: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Which source pixels each of N output pixels covers, and the share of it that each fills; [K, N] each.

    K is the most that any covers; the rest is filled up with weight 0.
    """
    edges = np.arange(size + 1) * (source / size)
    edges[-1] = source
    start, stop = edges[:-1], edges[1:]
    first = np.floor(start).astype(np.intp)
    index = first + np.arange(int((np.ceil(stop) - first).max()))[:, None]
    covered = np.minimum(index + 1, stop) - np.maximum(index, start)
    weight = np.maximum(covered, 0) / (stop - start)
    return np.minimum(index, source - 1), weight.astype(np.float32)


def resize_linear_exact(image: Images, height: int, width: int) -> Images:
    """Bilinear without antialiasing, in integers, half a level rounded up.

    Source: OpenCV's INTER_LINEAR_EXACT, with which Sample4Geo's images are prepared; its own pixels.
    """
    left, right, horizontal = _neighbours(image.shape[1], width)
    above, below, vertical = _neighbours(image.shape[0], height)
    # Rows that no output pixel reads are not resized.
    used, rows = np.unique(np.concatenate([above, below]), return_inverse=True)
    lines = image[used].astype(np.int32)
    lines = _mix(lines[:, left], lines[:, right], horizontal[None, :, None])
    first, second = np.split(rows, 2)
    mixed = _mix(lines[first], lines[second], vertical[:, None, None])
    return ((mixed + _ONE**2 // 2) >> 16).astype(np.uint8)


def _mix(first: NDArray[np.int32], second: NDArray[np.int32], weight: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.asarray(first * (_ONE - weight) + second * weight, np.int32)


@lru_cache(maxsize=16)
def _neighbours(source: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """Of N output pixels along one axis, the two source pixels that each lies between, and the weight of the second;
    [N] each. Beyond the first and the last pixel the weight is 0.
    """
    place = (np.arange(size) + 0.5) * source / size - 0.5
    first = np.floor(place).astype(np.intp)
    weight = np.rint((place - first) * _ONE).astype(np.int32)
    weight[(first < 0) | (first >= source - 1)] = 0
    first = np.clip(first, 0, source - 1)
    return first, np.minimum(first + 1, source - 1), weight


def resize_cubic(image: Images, height: int, width: int) -> Images:
    """Bicubic without antialiasing, in integers, clipped to 0 to 255.

    Source: OpenCV's INTER_CUBIC of 8-bit images (a = -0.75, 11 bits behind the point), which prepares CDE's images.
    """
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
