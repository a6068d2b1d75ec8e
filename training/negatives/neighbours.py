"""Batches of pairs that are easily mistaken for each other: neighbours on the map, or in descriptor space.

Works on tile numbers, positions and descriptors. Source: Deuser et al., "Sample4Geo", ICCV 2023, section 3.3, and its
release, whose batches `fill_batches` repeats, from the same shuffles.
"""

import random
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.geodesy import earth_centred
from geodtr.runtime.search.exact import search
from geodtr.runtime.spec import Descriptors

Neighbours = NDArray[np.int64]
"""[T, n]: for each of T tiles the numbers of others, nearest first."""

_SKIPS = 1024
"""So many pairs in a row that do not fit end an epoch, as in the release."""


def nearest_on_earth(lat: NDArray[np.float64], lon: NDArray[np.float64], count: int) -> Neighbours:
    """The `count` nearest others of each place, at most all; degrees (WGS 84), [T].

    The release of Sample4Geo takes degrees for radians here, and gets other lists.
    """
    return nearest_in_space(earth_centred(lat, lon).T, count)


def nearest_in_space(points: NDArray[np.float64], count: int) -> Neighbours:
    """The same by straight distance between `points` [T, d], such as UTM coordinates."""
    from scipy.spatial import cKDTree

    count = min(count, len(points) - 1)
    _, nearest = cKDTree(points).query(points, k=count + 1)
    return _without_self(np.asarray(nearest, np.int64).reshape(len(points), -1), np.arange(len(points)))


def most_similar(queries: Descriptors, references: Descriptors, truth: NDArray[np.int64], count: int) -> Neighbours:
    """For each reference, the `count` others that are most similar to its query; [Q, D], [T, D] unit rows.

    `truth` [Q] is the reference of each query. Of several queries of one reference the last counts, as in the release;
    a reference without a query has its own descriptor for one.
    """
    count = min(count, len(references) - 1)
    asking = references.copy()
    asking[truth] = queries
    return _without_self(search(asking, references, count + 1).rows, np.arange(len(references)))


def _without_self(found: Neighbours, own: NDArray[np.int64]) -> Neighbours:
    """Each row without its own number, or without its last one if that does not occur: one column less."""
    drop = found == own[:, None]
    drop[~drop.any(axis=1), -1] = True
    return np.asarray(found[~drop].reshape(len(found), -1), np.int64)


def fill_batches(
    tiles: Sequence[int], neighbours: Neighbours | None, batch_size: int, select: int, generator: random.Random
) -> list[list[int]]:
    """Pair numbers by batch: a pair is followed by pairs of its tile's neighbours, until the batch is full.

    A pair occurs at most once, a tile at most once in a batch. An unfinished batch is left out.

    Parameters
    ----------
    tiles
        The tile of each pair.
    neighbours
        Without them, batches are random.
    select
        Candidates after each pair: the nearest half of so many, and as many drawn from the others.
    generator
        Shuffles the pairs once, and the far candidates of each pair.
    """
    lists = {} if neighbours is None else {tile: row.tolist() for tile, row in enumerate(neighbours)}
    unused = defaultdict[int, list[int]](list)
    for pair, tile in enumerate(tiles):
        unused[tile].append(pair)
    order = list(range(len(tiles)))
    generator.shuffle(order)
    pool, skipped = deque(order), 0
    batches, batch = list[list[int]](), dict[int, int]()  # the pair of each tile

    def add(tile: int, pair: int) -> None:
        batch[tile] = pair
        unused[tile].remove(pair)

    while pool and skipped < _SKIPS:
        pair = pool.popleft()
        tile = tiles[pair]
        if tile in batch or pair not in unused[tile]:
            skipped += 1
            if pair in unused[tile]:
                pool.append(pair)
            continue
        skipped = 0
        add(tile, pair)
        if len(batch) < batch_size and tile in lists:
            for near in _candidates(lists[tile], select, generator):
                if near not in batch and unused[near]:
                    add(near, unused[near][0] if len(unused[near]) == 1 else generator.choice(unused[near]))
                    lists[tile].remove(near)
                    if len(batch) == batch_size:
                        break
        if len(batch) == batch_size:
            batches.append(list(batch.values()))
            batch.clear()
    return batches


def _candidates(nearest: Sequence[int], select: int, generator: random.Random) -> Iterator[int]:
    near, far = list(nearest[: select // 2]), list(nearest[select // 2 :])
    generator.shuffle(far)
    yield from (*near, *far[: select // 2])
