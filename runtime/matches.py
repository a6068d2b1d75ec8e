"""Which references belong to which queries, and the scores that rank them, in blocks of bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import DescriptorError
from geodtr.runtime.search.correlation import correlating
from geodtr.runtime.spec import Correlation, Descriptors

_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True)
class Matches:
    """Which references belong to which queries, as pairs of row numbers: `query` and `reference`, int64 [M] each.

    `query` is in rising order; a query may have several references, and a reference several queries.
    Raises ValueError when the order or the shapes are wrong.
    """

    query: NDArray[np.int64]
    reference: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.query.ndim != 1 or self.query.shape != self.reference.shape or (np.diff(self.query) < 0).any():
            raise ValueError(
                f"Matches are two columns [M], queries in rising order; given are {self.query.shape} and "
                f"{self.reference.shape}."
            )

    @classmethod
    def one_to_one(cls, count: int) -> "Matches":
        """Row i belongs to row i."""
        return cls(np.arange(count), np.arange(count))

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The matches of queries `start` to `stop`: query rows counted from `start`, and reference rows."""
        first, last = np.searchsorted(self.query, (start, stop))
        return self.query[first:last] - start, self.reference[first:last]

    def first(self, queries: int) -> "Matches":
        """The matches of the first `queries` queries."""
        return Matches(*self.between(0, queries))


def checked_matches(
    queries: Descriptors,
    references: Descriptors,
    truth: Matches | None,
    ignored: Matches | None,
    scorer: Correlation | None,
) -> Matches:
    """`truth`, by default row i for row i, once it and the other arguments are valid. Raises as `recall.rank` does."""
    if truth is None:
        if len(queries) != len(references):
            raise DescriptorError(
                f"Recall ranks each query among as many references; given are {queries.shape} and {references.shape}."
            )
        truth = Matches.one_to_one(len(queries))
    _check(queries, references, scorer)
    for matches in (truth, ignored):
        if matches is not None and len(matches.query):
            for rows, count in ((matches.query, len(queries)), (matches.reference, len(references))):
                if rows.min() < 0 or rows.max() >= count:
                    raise ValueError(f"A match names row {rows.min()} or {rows.max()}; allowed are 0 to {count - 1}.")
    alone = np.flatnonzero(np.bincount(truth.query, minlength=len(queries)) == 0)
    if len(alone):
        raise ValueError(f"{len(alone)} queries have no true reference, the first in row {alone[0]}.")
    return truth


def scores_in_blocks(
    queries: Descriptors, references: Descriptors, scorer: Correlation | None
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Start and stop of each block of queries, and their scores with all references, [stop - start, N], to write to."""
    first = _first_of_equals(references)
    # A scorer lays each query out at every column.
    width = len(references) if scorer is None else scorer.columns * max(len(references), scorer.reference_size)
    for start, stop in _blocks(len(queries), width):
        if scorer is None:
            scores = queries[start:stop] @ references.T
        else:
            scores = np.ascontiguousarray(correlating(scorer)(queries[start:stop]).multiply(references).T)
        yield start, stop, scores if first is None else np.take(scores, first, axis=1)


def leave_out(scores: NDArray[np.float32], start: int, stop: int, truth: Matches, ignored: Matches | None) -> None:
    """Neither another true reference nor an ignored one may count against a query."""
    scores[truth.between(start, stop)] = -np.inf
    if ignored is not None:
        scores[ignored.between(start, stop)] = -np.inf


def _blocks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Start and stop of runs of rows that hold about `_BLOCK` values together."""
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _first_of_equals(rows: Descriptors) -> NDArray[np.int64] | None:
    """For each row the first one with the same values, int64 [N]; None when all differ.

    A matrix product may round the scores of equal references differently in different columns. Ties decide whether a
    collapsed model looks perfect or worthless, so they must not depend on that.
    """
    seen: dict[bytes, int] = {}
    first = [seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), index) for index, row in enumerate(rows)]
    return None if len(seen) == len(rows) else np.array(first, np.int64)


def _check(queries: Descriptors, references: Descriptors, scorer: Correlation | None) -> None:
    sizes = queries.shape[1:], references.shape[1:]
    fit = sizes[0] == sizes[1] if scorer is None else sizes == ((scorer.query_size,), (scorer.reference_size,))
    if queries.ndim != 2 or not fit or len(queries) < 1 or len(references) < 2:
        raise DescriptorError(
            f"Recall ranks queries [Q, D] among at least two references [N, D]; given are {queries.shape} and "
            f"{references.shape}."
        )
    for name, rows in (("query", queries), ("reference", references)):
        finite = np.concatenate([np.isfinite(rows[start:stop]).all(axis=1) for start, stop in _blocks(*rows.shape)])
        bad = len(finite) - np.count_nonzero(finite)
        if bad:
            raise DescriptorError(
                f"{bad} {name} descriptors are not finite, the first in row {np.argmin(finite)}: the model is broken."
            )
