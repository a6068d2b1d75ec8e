"""Exact nearest references by cosine similarity, in bounded memory and by as many threads as there are cores.

Knows descriptors and row numbers; knows nothing of images or places. How rows are multiplied is told in products.py,
how they are gone through in sweep.py, how the best are kept in shortlist.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.search.blocks import Block, Sift, blocks, sweep
from geodtr.runtime.search.matmul import compressed_product, product
from geodtr.runtime.search.quantize import Compressed
from geodtr.runtime.search.topk import Exact, Pairs, Rows, Scores
from geodtr.runtime.spec import Descriptors

_QUERIES = 256
_BLOCK_SCORES = 1 << 20
"""Blocks are so small that their scores stay in cache, and so large that what Python does between them is little."""
_GATHERED_VALUES = 1 << 25
"""Copies of rows that lie apart are no larger."""
_FIRST, _FIRST_SCORES = 1024, 1 << 14
"""Enough references to know what is good, few enough to be gone through."""
_COMPARED_VALUES = 1 << 16
_THREAD_VALUES = 1 << 20
"""What is worth a thread."""
_LONGEST = np.float32(1.01)
"""No unit row is longer, however it was rounded."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest references of each query, best first: `rows` int64 [Q, K], `scores` float32 [Q, K] (cosine)."""

    rows: Rows
    scores: Scores


def search(queries: Descriptors, references: Descriptors, top: int, among: Rows | None = None) -> Hits:
    """The `top` references with the largest cosine to each query; of equal scores, the lowest row first.

    queries [Q, D], references [N, D], unit rows. `among` holds the rows of the only references that may be found, int64
    [M], rising; None means all. Where they are fewer than `top`, all of them are returned.
    Cosines are rounded to float32 as the library that multiplies rounds them; of references that differ by no more,
    either may come first. One that is no number, of a damaged row, counts as infinite, so that it is seen.
    Raises ValueError when `top` is less than 1.
    """

    def search_part(part: Descriptors, kept: int) -> Pairs:
        multiply = product(part)

        def sift(block: Block, thresholds: Scores) -> Pairs:
            scores = block.of(multiply.multiply(references[block.rows]))
            begun = not np.isnan(thresholds).any()
            rows, columns = _where(~(scores <= thresholds) if begun else ~(scores < _bars(scores, kept)))
            cosines = _seen(scores[rows, columns])
            return Pairs(columns, block.numbers(rows), cosines, cosines)

        return _sweep(sift, part, len(references), among, kept, multiply.threads, None)

    return _search_parts(search_part, queries, len(references) if among is None else len(among), top)


def search_compressed(
    queries: Descriptors, compressed: Compressed, references: Descriptors, top: int, among: Rows | None = None
) -> Hits:
    """What `search` finds among `references`, of which only a shortlist is touched: the rest is told by `compressed`.

    With q' for the compressed query and r' for the compressed row, q.r - q'.r' = (q - q').r + q'.(r - r'): by Cauchy
    and Schwarz no farther from 0 than the query's error times the row's length and the row's error times the query's.
    All that may stand among the best `top` within these bounds are scored again in float32, so that the answer is the
    same, not nearly the same; how long the shortlist is depends on the descriptors: of such as are nearly alike it is
    nearly all. A damaged row is seen where its compressed product is no number or too large, and no other is hidden.
    """

    def search_part(part: Descriptors, kept: int) -> Pairs:
        multiply = compressed_product(part, compressed.compression)
        lengths = np.linalg.norm(part, axis=1)
        # Both searches' products are rounded as well, each by at most half of this.
        rounding = lengths * np.float32((part.shape[1] + 16) * np.finfo(np.float32).eps)
        reach, constant = lengths + multiply.errors, rounding + multiply.errors * _LONGEST

        def between(
            products: NDArray[Any], scales: Scores, errors: Scores, which: slice | Rows
        ) -> tuple[Scores, Scores]:
            """Between what the cosines lie that belong to `products` with the queries `which`."""
            scores = products * (multiply.scales[which] * scales)
            bounds = reach[which] * errors + constant[which]
            # Of a damaged row nothing is known.
            sound = np.abs(scores) <= lengths[which] * _LONGEST + bounds
            lowest, highest = np.where(sound, scores - bounds, -np.inf), np.where(sound, scores + bounds, np.inf)
            return lowest.astype(np.float32), highest.astype(np.float32)

        def sift(block: Block, thresholds: Scores) -> Pairs:
            products = block.of(multiply.multiply(compressed.values[block.rows]))
            scales, errors = block.of(compressed.scales[block.rows]), block.of(compressed.errors[block.rows])
            if np.isnan(thresholds).any():
                thresholds = _bars(between(products, scales[:, None], errors[:, None], slice(None))[0], kept)
            # One comparison of the products as they are leaves few pairs to be looked at closely.
            needed = thresholds - reach * errors.max() - constant
            needed /= multiply.scales * np.where(needed > 0, scales.max(), scales.min())
            rows, columns = _where(~(products < _in(products.dtype, needed)))
            lowest, highest = between(products[rows, columns], scales[rows], errors[rows], columns)
            pairs = Pairs(columns, block.numbers(rows), lowest, highest)
            return pairs.take(~(highest < thresholds[columns]))

        return _sweep(sift, part, len(references), among, kept, multiply.threads, _cosines(part, references))

    return _search_parts(search_part, queries, len(references) if among is None else len(among), top)


def _search_parts(search_part: Callable[[Descriptors, int], Pairs], queries: Descriptors, count: int, top: int) -> Hits:
    """Search for a bounded number of queries at a time, among `count` references."""
    if top < 1:
        raise ValueError(f"top is {top}; at least one reference must be asked for.")
    shape = (len(queries), min(top, count))
    hits = Hits(np.empty(shape, np.int64), np.empty(shape, np.float32))
    for start in range(0, len(queries) if count else 0, _QUERIES):
        part = slice(start, start + _QUERIES)
        best = search_part(np.ascontiguousarray(queries[part], np.float32), shape[1])
        hits.rows[part] = best.references.reshape(-1, shape[1])
        hits.scores[part] = best.lowest.reshape(-1, shape[1])
    return hits


def _sweep(
    sift: Sift, queries: Descriptors, count: int, among: Rows | None, kept: int, threads: int, exact: Exact | None
) -> Pairs:
    wide, size = queries.shape
    total = count if among is None else len(among)
    threads = max(1, min(threads, total * size // _THREAD_VALUES))
    largest = _BLOCK_SCORES // wide if among is None else min(_BLOCK_SCORES // wide, _GATHERED_VALUES // size)
    first = max(_FIRST, _FIRST_SCORES // wide, 4 * kept)
    in_turn = blocks(count, among, first, max(64, largest), threads)
    return sweep(sift, in_turn, wide, kept, exact, threads)


def _cosines(queries: Descriptors, references: Descriptors) -> Exact:
    """Each by itself and in one way: the same rows score the same wherever they lie and whatever else is asked."""
    step = max(1, _COMPARED_VALUES // queries.shape[1])

    def exact(which: Rows, rows: Rows) -> Scores:
        scores = np.empty(len(which), np.float32)
        for start in range(0, len(which), step):
            part = slice(start, start + step)
            scores[part] = np.einsum("pd,pd->p", queries[which[part]], references[rows[part]])
        return _seen(scores)

    return exact


def _bars(scores: NDArray[Any], kept: int) -> Scores:
    """The `kept`-th largest of the scores [M, Q] of each query; NaN, which is no bar, where there are not so many."""
    count, wide = scores.shape
    if count < kept:
        return np.full(wide, np.nan, np.float32)
    return np.partition(scores.T, count - kept, axis=1)[:, count - kept].astype(np.float32)


def _seen(cosines: Scores) -> Scores:
    """A cosine that is no number counts as infinite."""
    return np.where(np.isnan(cosines), np.float32(np.inf), cosines)


def _where(true: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """Rows and columns of what is true of a matrix; much faster than NumPy's own where that is little."""
    if true.flags.f_contiguous:
        columns, rows = np.divmod(np.flatnonzero(true.T), len(true))
        return rows, columns
    rows, columns = np.divmod(np.flatnonzero(true), true.shape[1])
    return rows, columns


def _in(dtype: np.dtype[Any], bars: Scores) -> NDArray[Any]:
    """The same bars for products of `dtype`, or slightly lower ones. NaN stands for no bar."""
    if dtype.kind == "f":
        return bars
    limits = np.iinfo(dtype)
    whole = np.floor(bars.astype(np.float64))
    whole = np.where(np.isnan(whole), limits.min, np.clip(whole, limits.min, limits.max))
    return whole.astype(dtype)
