"""Exact nearest references by cosine similarity, in blocks of bounded memory.

Knows descriptors and row numbers; knows nothing of images or places.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.compression import Compressed
from geodtr.runtime.spec import Descriptors

_BLOCK_SCORES = 1 << 24
_BLOCK_VALUES = 1 << 22
_CACHED_VALUES = 1 << 20
"""Compressed values are made float32 in blocks that caches hold, because they are read again at once."""
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest references of each query, best first: `rows` int64 [Q, K], `scores` float32 [Q, K] (cosine)."""

    rows: Rows
    scores: NDArray[np.float32]


def search(queries: Descriptors, references: Descriptors, top: int, among: Rows | None = None) -> Hits:
    """The `top` references with the largest cosine to each query; which of several equal ones comes first is not said.

    queries [Q, D], references [N, D], unit rows. `among` holds the rows of the only references that may be found, int64
    [M], rising; None means all. Where they are fewer than `top`, all of them are returned.
    Raises ValueError when `top` is less than 1.
    """
    count = len(references) if among is None else len(among)
    hits = _no_hits(len(queries), top, count)
    for part in _parts(len(queries), max(count, len(references))):
        scores = _scores(queries[part], references, among)
        _keep_best(hits, part, among, scores)
    return hits


def search_compressed(
    queries: Descriptors, compressed: Compressed, references: Descriptors, top: int, among: Rows | None = None
) -> Hits:
    """What `search` finds among `references`, of which only a shortlist is touched: the rest is told by `compressed`.

    By Cauchy and Schwarz a reference's cosine lies within (length of the query) x (error of its compressed row) of the
    compressed one. All that may stand among the best `top` within these bounds are scored again in float32, so that
    the answer is the same, not nearly the same; how long the shortlist is depends on the descriptors.
    """
    count = len(references) if among is None else len(among)
    hits = _no_hits(len(queries), top, count)
    kept = hits.rows.shape[1]
    if not kept:
        return hits
    # A part's candidates are few, unless the model has collapsed: then they are all.
    for part in _parts(len(queries), count // 4):
        which, columns = _candidates(queries[part], compressed, among, kept)
        starts = np.searchsorted(which, np.arange(part.stop - part.start + 1))
        for query, mine in enumerate(map(slice, starts[:-1], starts[1:]), part.start):
            rows = columns[mine] if among is None else among[columns[mine]]
            one = slice(query, query + 1)
            _keep_best(hits, one, rows, _scores(queries[one], references, rows))
    return hits


def _candidates(queries: Descriptors, compressed: Compressed, among: Rows | None, kept: int) -> tuple[Rows, Rows]:
    """Pairs of a query and a column of `among` that may be one of its best `kept`, by query and column in rising order.

    Goes once over the compressed rows, a block of which is float32 at a time, and holds on to what may still win.
    """
    size = queries.shape[1]
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    # Both products are rounded as well, each by at most half of this for unit rows.
    rounding = np.float32(size * np.finfo(np.float32).eps)
    best = np.full((len(queries), kept), -np.inf, np.float32)
    found = list[tuple[Rows, Rows, NDArray[np.float32]]]()
    for part in _row_blocks(len(compressed.values) if among is None else len(among), size, _CACHED_VALUES):
        rows = part if among is None else among[part]
        scores = (queries @ compressed.values[rows].astype(np.float32).T) * compressed.scales[rows]
        bounds = lengths * (compressed.errors[rows] + rounding)
        scores += bounds
        which, columns = np.nonzero(~(scores < best.min(axis=1, keepdims=True)))
        # Of a damaged row, whose score is no number, nothing is known: that must not make it the best.
        highest = np.fmax(scores[which, columns], -np.inf)
        lowest = highest - 2 * bounds[which, columns]
        rising, starts = np.unique(which, return_index=True)
        for query, rivals in zip(rising, np.split(lowest, starts[1:]), strict=True):
            best[query] = np.partition(np.concatenate([best[query], rivals]), -kept)[-kept:]
        found.append((which, columns + part.start, highest))
    which, columns, highest = (np.concatenate(parts) for parts in zip(*found, strict=True))
    still = highest >= best.min(axis=1)[which]
    which, columns = which[still], columns[still]
    order = np.lexsort((columns, which))
    return which[order], columns[order]


def _no_hits(queries: int, top: int, count: int) -> Hits:
    """Hits still to be filled, as many a query as can be found."""
    if top < 1:
        raise ValueError(f"top is {top}; at least one reference must be asked for.")
    kept = min(top, count)
    return Hits(np.empty((queries, kept), np.int64), np.empty((queries, kept), np.float32))


def _parts(queries: int, width: int) -> Iterator[slice]:
    """Runs of queries whose scores against `width` references take bounded memory."""
    step = max(1, _BLOCK_SCORES // max(1, width))
    return (slice(start, min(start + step, queries)) for start in range(0, queries, step))


def _scores(queries: Descriptors, references: Descriptors, among: Rows | None) -> NDArray[np.float32]:
    """Cosines [Q, M] in the order of `among`."""
    if among is None:
        return queries @ references.T
    if 2 * len(among) > len(references):
        return (queries @ references.T)[:, among]
    scores = np.empty((len(queries), len(among)), np.float32)
    for part in _row_blocks(len(among), references.shape[1], _BLOCK_VALUES):
        scores[:, part] = queries @ references[among[part]].T
    return scores


def _row_blocks(rows: int, width: int, values: int) -> Iterator[slice]:
    """Runs of rows of `width` that hold about `values` values together."""
    step = max(1, values // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _keep_best(hits: Hits, part: slice, among: Rows | None, scores: NDArray[np.float32]) -> None:
    """Fill the hits of the queries in `part` from their scores, whose column i belongs to the reference `among[i]`."""
    kept = hits.rows.shape[1]
    if not kept:
        return
    candidates = np.sort(np.argpartition(scores, -kept, axis=1)[:, -kept:], axis=1)
    found = np.take_along_axis(scores, candidates, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    columns = np.take_along_axis(candidates, order, axis=1)
    hits.rows[part] = columns if among is None else among[columns]
    hits.scores[part] = np.take_along_axis(found, order, axis=1)
