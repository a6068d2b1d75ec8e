"""Scores of feature maps that are compared at every orientation: where a query fits best into a full turn.

A query's map is moved column by column along the reference's, which is circular. Where the product is largest, the
query looks; the score is the cosine between the query and the columns that it covers there. All moves are one product
of matrices: the query is laid out at each orientation. Exact; knows nothing of images or places.
Source: Shi et al., CVPR 2020, section 3.3, and its release: the orientation is the raw product's, not the cosine's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.search.matmul import Product, product
from geodtr.runtime.search.topk import Rows
from geodtr.runtime.spec import Correlation, Descriptors

_PRODUCTS = 1 << 20
"""Products that are in memory at once, for each thread."""
_SMALLEST = 1e-12
"""The release's least squared length."""


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Of M references and Q queries: `scores` float32 [M, Q] and the columns where each fits best, int64 [M, Q]."""

    scores: NDArray[np.float32]
    columns: Rows


def correlating(scorer: Correlation) -> Callable[[Descriptors], Product]:
    """What takes the place of `product` in a search."""

    def prepare(queries: Descriptors) -> Product:
        laid_out = product(_at_every_column(queries, scorer))
        step = max(64, _PRODUCTS // max(1, len(queries) * scorer.columns))

        def multiply(rows: Descriptors) -> NDArray[np.float32]:
            parts = [
                _fit(laid_out.multiply(part), part, scorer).scores
                for part in (rows[start : start + step] for start in range(0, len(rows), step))
            ]
            return np.concatenate(parts) if parts else np.empty((0, len(queries)), np.float32)

        return Product(multiply, laid_out.threads)

    return prepare


def best_columns(queries: Descriptors, references: Descriptors, rows: Rows, scorer: Correlation) -> Rows:
    """The column of each query's references `rows` [Q, K] at which the query's first one fits best, int64 [Q, K]."""
    columns = np.empty(rows.shape, np.int64)
    for index, query in enumerate(queries):
        own = np.ascontiguousarray(references[rows[index]])
        products = own @ _at_every_column(query[None], scorer).T
        columns[index] = _fit(products, own, scorer).columns[:, 0]
    return columns


def headings(columns: Rows, scorer: Correlation) -> NDArray[np.float64]:
    """Degrees clockwise from north in which the query's centre looks, if its first column is at `columns`."""
    return np.asarray((columns * (360 / scorer.columns) + scorer.field_of_view / 2 - 180) % 360, np.float64)


def _at_every_column(queries: Descriptors, scorer: Correlation) -> Descriptors:
    """[Q, seen * values] -> [Q * columns, columns * values]: each query from column 0, 1, ... on, zero elsewhere."""
    maps = np.zeros((len(queries), scorer.columns, scorer.values), np.float32)
    maps[:, : scorer.seen] = queries.reshape(len(queries), scorer.seen, scorer.values)
    moved = np.stack([np.roll(maps, column, axis=1) for column in range(scorer.columns)], axis=1)
    return moved.reshape(len(queries) * scorer.columns, -1)


def _fit(products: NDArray[np.float32], rows: Descriptors, scorer: Correlation) -> _Fitted:
    """`products` [M, Q * columns] of the references `rows` with queries at every column; of equal ones, the first."""
    each = products.reshape(len(rows), -1, scorer.columns)
    columns = each.argmax(axis=2)
    best = np.take_along_axis(each, columns[:, :, None], axis=2)[:, :, 0]
    energy = np.take_along_axis(_energies(rows, scorer), columns, axis=1)
    return _Fitted((best / np.sqrt(np.maximum(energy, _SMALLEST))).astype(np.float32), columns)


def _energies(rows: Descriptors, scorer: Correlation) -> NDArray[np.float64]:
    """The squared length of the `seen` columns from each column on, [M, columns]."""
    maps = rows.reshape(len(rows), scorer.columns, scorer.values)
    energy = np.einsum("mcv,mcv->mc", maps, maps).astype(np.float64)
    total = np.cumsum(np.concatenate([energy, energy[:, : scorer.seen - 1]], axis=1), axis=1)
    total[:, scorer.seen :] -= total[:, : scorer.columns - 1].copy()
    return total[:, scorer.seen - 1 :]
