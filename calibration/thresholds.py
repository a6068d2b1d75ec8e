"""Compute the quantisation range of a tensor from the histogram of its values; values outside are clipped.

minmax clips nothing, percentile keeps a share of the values, entropy minimises the divergence of the distributions, and
mse balances the errors of clipping and rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.names import Method

PERCENTILE = 99.99

BINS = 4096
_LEVELS = 256
_ENTROPY_BINS, _ENTROPY_LEVELS = 2048, 128


@dataclass(frozen=True, slots=True)
class Histogram:
    """Number of values in each of BINS equal parts of [low, high]; counts int64 [BINS]."""

    low: float
    high: float
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, low: float, high: float) -> "Histogram":
        return cls(low, high, np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> "Histogram":
        """A histogram with `values` added; all must be within its range."""
        width = (self.high - self.low) / BINS
        if width < np.finfo(np.float32).tiny:  # a constant tensor; the inverse would overflow
            return self
        # Ten times faster than numpy.histogram, which compares with exact bin edges.
        index = ((values.ravel() - np.float32(self.low)) * np.float32(1 / width)).astype(np.int32)
        return replace(self, counts=self.counts + np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS))

    @property
    def centres(self) -> NDArray[np.float64]:
        """The centre of each bin, float64 [BINS]."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        middles: NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
        return middles


def threshold_of(method: Method, percentile: float = PERCENTILE) -> Callable[[Histogram], tuple[float, float]] | None:
    """The function from a histogram to a range for `method`; None if it needs no histogram."""
    if method == "minmax":
        return None
    if method == "percentile":
        return partial(by_percentile, kept=percentile)
    return by_entropy if method == "entropy" else by_error


def by_percentile(histogram: Histogram, kept: float = PERCENTILE) -> tuple[float, float]:
    """The range that contains `kept` percent of the values. Both ends are cut equally, unless one is zero."""
    counts = histogram.counts
    if not counts.any():
        return histogram.low, histogram.high
    share = np.cumsum(counts) / counts.sum()
    cut = 1 - kept / 100
    ends = (histogram.low < 0) + (histogram.high > 0)
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    low, high = histogram.low, histogram.high
    if low < 0:
        low = min(0.0, float(edges[np.searchsorted(share, cut / ends, side="right")]))
    if high > 0:
        high = max(0.0, float(edges[1 + min(int(np.searchsorted(share, 1 - cut / ends)), BINS - 1)]))
    return low, high


def by_entropy(histogram: Histogram) -> tuple[float, float]:
    """The threshold on absolute values that minimises the divergence of the quantised distribution.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017: Kullback-Leibler divergence between the first i bins,
    with the clipped values added to the last bin, and the same bins in 128 levels. Zeros are ignored, because every
    range represents them exactly.
    """
    largest = max(abs(histogram.low), abs(histogram.high))
    if not largest or not histogram.counts.any():
        return histogram.low, histogram.high
    counts = _of_absolute_values(histogram, largest)
    counts[0] = counts[1]
    candidates = range(_ENTROPY_LEVELS, _ENTROPY_BINS + 1, 8)
    best = min(candidates, key=lambda bins: _divergence(counts, bins))
    threshold = largest * best / _ENTROPY_BINS
    return max(histogram.low, -threshold), min(histogram.high, threshold)


def _of_absolute_values(histogram: Histogram, largest: float) -> NDArray[np.float64]:
    """The histogram of absolute values in _ENTROPY_BINS equal parts of [0, largest].

    Counts are interpolated between bins: rounding to whole bins would add a beat pattern to the distribution.
    """
    edges = np.linspace(0, largest, _ENTROPY_BINS + 1)
    source_edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    counts = np.interp(edges, source_edges, below) - np.interp(-edges, source_edges, below)
    return np.asarray(np.diff(counts), np.float64)


def _divergence(counts: NDArray[Any], bins: int) -> float:
    """KL divergence of the first `bins`, clipped, from their 128 levels, in nats."""
    true = counts[:bins].copy()
    level = np.arange(bins) * _ENTROPY_LEVELS // bins
    filled = true > 0
    held = np.bincount(level, weights=true, minlength=_ENTROPY_LEVELS)
    spread = np.bincount(level, weights=filled, minlength=_ENTROPY_LEVELS)
    rounded = np.where(filled, (held / np.maximum(spread, 1))[level], 0)
    true[-1] += counts[bins:].sum()
    if not rounded.any():
        return np.inf
    p, q = true / true.sum(), rounded / rounded.sum()
    # The divergence is infinite if a value is missing from the rounded distribution; a small floor keeps it finite.
    q = np.maximum(q, 1e-12)
    known = p > 0
    return float(np.sum(p[known] * np.log(p[known] / q[known])))


def by_error(histogram: Histogram) -> tuple[float, float]:
    """The fraction of the full range that minimises the mean squared error of 256 levels; zero, or the end next to it,
    stays where it is.
    """
    if not histogram.counts.any() or histogram.low == histogram.high:
        return histogram.low, histogram.high
    centres, counts = histogram.centres, histogram.counts
    fixed = min(max(0.0, histogram.low), histogram.high)

    def ends(share: float) -> tuple[float, float]:
        return fixed + (histogram.low - fixed) * share, fixed + (histogram.high - fixed) * share

    def error(share: float) -> float:
        low, high = ends(share)
        step = (high - low) / (_LEVELS - 1)
        rounded = np.clip(np.round((centres - low) / step), 0, _LEVELS - 1) * step + low
        return float(np.sum(counts * (centres - rounded) ** 2))

    return ends(min(np.linspace(1, 0.2, 81).tolist(), key=error))
