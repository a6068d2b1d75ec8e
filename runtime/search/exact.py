"""Exact nearest references by cosine similarity, in bounded memory and by as many threads as there are cores.

Knows descriptors and row numbers; knows nothing of images or places. matmul.py multiplies rows, blocks.py scans the
references, topk.py keeps the best.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.search.blocks import Block, BlockScorer, blocks, scan
from geodtr.runtime.search.correlation import best_columns, correlating, headings
from geodtr.runtime.search.matmul import Product, compressed_product, product
from geodtr.runtime.search.quantize import Compressed
from geodtr.runtime.search.topk import Exact, Pairs, Rows, Scores
from geodtr.runtime.spec import Correlation, Descriptors

_QUERIES, _HITS = 256, 1 << 18
"""Queries that are searched together, and what they may find in all: of each hit some 700 bytes are used meanwhile."""
_BLOCK_SCORES = 1 << 20
"""Scores in a block: few enough to stay in cache, many enough that Python's overhead between blocks is small."""
_GATHERED_VALUES = 1 << 25
"""Maximum number of values in a copy of scattered rows."""
_FIRST, _FIRST_SCORES = 1024, 1 << 14
"""Size of the first block: enough references for a useful threshold, few enough to score quickly."""
_COMPARED_VALUES = 1 << 16
_BOUNDED_SHARE = 8
"""If one comparison leaves more than one of so many pairs, to bound each takes longer than to multiply all."""
_OPEN_SHARE = 64
"""Of so many pairs, one that is scored by itself costs about as much as all others in a product of matrices."""
_FOUND_SHARE = 16
"""If more than one of so many references is found, to score those again takes longer than to multiply all."""
_SKIPPED = 15
"""Blocks that are multiplied in float32 at once after one whose compressed products left too much open."""
_THREAD_VALUES = 1 << 20
"""Values that are worth a thread."""
_LONGEST = np.float32(1.01)
"""Maximum length of a unit row after rounding."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest references of each query, best first: `rows` int64 [Q, K], `scores` float32 [Q, K] (cosine).

    `headings`: float64 [Q, K], in which the query's centre looks, degrees; None where the scorer finds none.
    """

    rows: Rows
    scores: Scores
    headings: NDArray[np.float64] | None = None


def search(
    queries: Descriptors,
    references: Descriptors,
    top: int,
    among: Rows | None = None,
    scored: Callable[[Descriptors], Product] = product,
) -> Hits:
    """The `top` references with the largest cosine to each query; of equal scores, the lowest row first.

    queries [Q, D], references [N, D], unit rows. `among` restricts the search to these rows, int64 [M],
    rising; None means all. If there are fewer than `top`, all of them are returned. `scored` makes what scores
    references with some queries; by default, it multiplies them.
    Cosines have the float32 rounding of the library that multiplies; references that differ by no more than that may
    come in either order. The NaN of a damaged row counts as infinite, so that it appears in the result.
    Raises ValueError when `top` is less than 1.
    """

    def search_part(part: Descriptors, kept: int) -> Pairs:
        multiply = scored(part)

        def score_block(block: Block, thresholds: Scores) -> Pairs:
            return _certain_pairs(block, block.of(multiply.multiply(references[block.rows])), thresholds, kept)

        return _scan(score_block, part, len(references), among, kept, multiply.threads, None)

    return _search_parts(search_part, queries, len(references) if among is None else len(among), top)


def search_compressed(
    queries: Descriptors, compressed: Compressed, references: Descriptors, top: int, among: Rows | None = None
) -> Hits:
    """The result of `search`, computed mostly from `compressed`; few rows of `references` are read.

    With q' for the compressed query and r' for the compressed row, q.r - q'.r' = (q - q').r + q'.(r - r'). By Cauchy
    and Schwarz, its size is at most the query's error times the row's length plus the row's error times the query's.
    Every row that these bounds allow among the best `top` is scored again in float32, so the result is exactly the
    same. Their number depends on the descriptors: a block of which they are many, because all are nearly alike, is
    multiplied in float32 as a whole, as `search` does, and only what its rounding leaves open is scored again. If even
    that is much, the block's references differ by rounding alone. A damaged row appears in the result if its compressed
    product is NaN or too large, and never hides another row. If `top` is a large share of the references, this is
    `search`.
    """
    total = len(references) if among is None else len(among)
    if top * _FOUND_SHARE > total:
        return search(queries, references, top, among)

    def search_part(part: Descriptors, kept: int) -> Pairs:
        multiply = compressed_product(part, compressed.compression)
        lengths = np.linalg.norm(part, axis=1)
        # Both searches' products are rounded as well, each by at most half of this.
        rounding = lengths * np.float32((part.shape[1] + 16) * np.finfo(np.float32).eps)
        reach, constant = lengths + multiply.errors, rounding + multiply.errors * _LONGEST
        floats, skips = product(part), [0]

        def between(
            products: NDArray[Any], scales: Scores, errors: Scores, which: slice | Rows
        ) -> tuple[Scores, Scores]:
            """Lower and upper bounds of the cosines that `products` with the queries `which` stand for."""
            scores = products * (multiply.scales[which] * scales)
            bounds = reach[which] * errors + constant[which]
            # The cosine of a damaged row has no bounds.
            valid = np.abs(scores) <= lengths[which] * _LONGEST + bounds
            lowest, highest = np.where(valid, scores - bounds, -np.inf), np.where(valid, scores + bounds, np.inf)
            return lowest.astype(np.float32), highest.astype(np.float32)

        def score_block(block: Block, thresholds: Scores) -> Pairs:
            if skips[0] > 0:
                skips[0] -= 1
                return score_in_floats(block, thresholds)
            products = block.of(multiply.multiply(compressed.values[block.rows]))
            scales, errors = block.of(compressed.scales[block.rows]), block.of(compressed.errors[block.rows])
            known = thresholds
            if np.isnan(thresholds).any():
                thresholds = _kth_largest(between(products, scales[:, None], errors[:, None], slice(None))[0], kept)
            # One comparison of the raw products leaves few pairs for the exact bounds.
            needed = thresholds - reach * errors.max() - constant
            needed /= multiply.scales * np.where(needed > 0, scales.max(), scales.min())
            open_pairs = ~(products < _in(products.dtype, needed))
            if np.count_nonzero(open_pairs) * _BOUNDED_SHARE <= open_pairs.size:
                rows, columns = _nonzero(open_pairs)
                lowest, highest = between(products[rows, columns], scales[rows], errors[rows], columns)
                still_open = np.flatnonzero(~(highest < thresholds[columns]))
                if not _are_many(len(still_open), products.shape, kept):
                    return Pairs(columns, block.numbers(rows), lowest, highest).take(still_open)
            # What comes next is probably no different.
            skips[0] = _SKIPPED
            return score_in_floats(block, known)

        def score_in_floats(block: Block, thresholds: Scores) -> Pairs:
            scores = block.of(floats.multiply(references[block.rows]))
            needed = _kth_largest(scores, kept) - rounding if np.isnan(thresholds).any() else thresholds
            open_pairs = ~(scores < needed - rounding)
            if _are_many(int(np.count_nonzero(open_pairs)), scores.shape, kept):
                return _certain_pairs(block, scores, thresholds, kept)
            rows, columns = _nonzero(open_pairs)
            cosines, error = scores[rows, columns], rounding[columns]
            valid = ~np.isnan(cosines)
            lowest, highest = np.where(valid, cosines - error, -np.inf), np.where(valid, cosines + error, np.inf)
            return Pairs(columns, block.numbers(rows), lowest.astype(np.float32), highest.astype(np.float32))

        return _scan(score_block, part, len(references), among, kept, multiply.threads, _cosines(part, references))

    return _search_parts(search_part, queries, total, top)


def search_correlated(
    queries: Descriptors, references: Descriptors, top: int, scorer: Correlation, among: Rows | None = None
) -> Hits:
    """The `top` references into which each query fits best, and its heading there; otherwise as `search`.

    queries [Q, seen * values], references [N, columns * values].
    """
    hits = search(queries, references, top, among, correlating(scorer))
    return replace(hits, headings=headings(best_columns(queries, references, hits.rows, scorer), scorer))


def _certain_pairs(block: Block, scores: Scores, thresholds: Scores, kept: int) -> Pairs:
    """The pairs of a block whose `scores` [M, Q], which count as certain, pass the thresholds."""
    begun = not np.isnan(thresholds).any()
    rows, columns = _nonzero(~(scores <= thresholds) if begun else ~(scores < _kth_largest(scores, kept)))
    cosines = _nan_to_inf(scores[rows, columns])
    return Pairs(columns, block.numbers(rows), cosines, cosines)


def _are_many(open_pairs: int, shape: tuple[int, ...], kept: int) -> bool:
    """Whether to score so many open pairs of a block [M, Q] one by one takes longer than to multiply it all again."""
    count, wide = shape
    return open_pairs > max(2 * kept * wide, count * wide // _OPEN_SHARE)


def _search_parts(search_part: Callable[[Descriptors, int], Pairs], queries: Descriptors, count: int, top: int) -> Hits:
    """Search for a bounded number of queries at a time, among `count` references."""
    if top < 1:
        raise ValueError(f"top is {top}; it must be at least 1.")
    shape = (len(queries), min(top, count))
    hits = Hits(np.empty(shape, np.int64), np.empty(shape, np.float32))
    step = max(1, min(_QUERIES, _HITS // max(1, shape[1])))
    for start in range(0, len(queries) if count else 0, step):
        part = slice(start, start + step)
        best = search_part(np.ascontiguousarray(queries[part], np.float32), shape[1])
        hits.rows[part] = best.references.reshape(-1, shape[1])
        hits.scores[part] = best.lowest.reshape(-1, shape[1])
    return hits


def _scan(
    score_block: BlockScorer,
    queries: Descriptors,
    count: int,
    among: Rows | None,
    kept: int,
    threads: int,
    exact: Exact | None,
) -> Pairs:
    wide, size = queries.shape
    total = count if among is None else len(among)
    threads = max(1, min(threads, total * size // _THREAD_VALUES))
    largest = _BLOCK_SCORES // wide if among is None else min(_BLOCK_SCORES // wide, _GATHERED_VALUES // size)
    first = max(_FIRST, _FIRST_SCORES // wide, 4 * kept)
    in_turn = blocks(count, among, first, max(64, largest), threads)
    return scan(score_block, in_turn, wide, kept, exact, threads)


def _cosines(queries: Descriptors, references: Descriptors) -> Exact:
    """Compute each cosine separately, so that a pair's score depends on nothing but its two rows."""
    step = max(1, _COMPARED_VALUES // queries.shape[1])

    def exact(which: Rows, rows: Rows) -> Scores:
        scores = np.empty(len(which), np.float32)
        for start in range(0, len(which), step):
            part = slice(start, start + step)
            scores[part] = np.einsum("pd,pd->p", queries[which[part]], references[rows[part]])
        return _nan_to_inf(scores)

    return exact


def _kth_largest(scores: NDArray[Any], kept: int) -> Scores:
    """The `kept`-th largest score of each query, from scores [M, Q]; NaN, for no threshold, if there are fewer."""
    count, wide = scores.shape
    if count < kept:
        return np.full(wide, np.nan, np.float32)
    return np.partition(scores.T, count - kept, axis=1)[:, count - kept].astype(np.float32)


def _nan_to_inf(cosines: Scores) -> Scores:
    """Replace NaN by infinity."""
    return np.where(np.isnan(cosines), np.float32(np.inf), cosines)


def _nonzero(true: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """Rows and columns of the true values of a matrix; much faster than np.nonzero where few are true."""
    if true.flags.f_contiguous:
        columns, rows = np.divmod(np.flatnonzero(true.T), len(true))
        return rows, columns
    rows, columns = np.divmod(np.flatnonzero(true), true.shape[1])
    return rows, columns


def _in(dtype: np.dtype[Any], thresholds: Scores) -> NDArray[Any]:
    """The thresholds converted to `dtype`, rounded down. NaN stands for no threshold."""
    if dtype.kind == "f":
        return thresholds
    limits = np.iinfo(dtype)
    whole = np.floor(thresholds.astype(np.float64))
    whole = np.where(np.isnan(whole), limits.min, np.clip(whole, limits.min, limits.max))
    return whole.astype(dtype)
