"""Which images of a list of pairs exist."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from geodtr.training.data.pair_set import Pair, PairSet, Skipped

_PART = 256
"""Paths that a thread checks at a time: a future for each path would take more memory than the paths."""


def existing(name: str, pairs: Iterable[Pair], distractors: Iterable[Path] = ()) -> PairSet:
    """The set of pairs whose two images exist; missing files are in `skipped`, in the order of the list.

    Raises DataError when no pair is left.
    """
    return without_missing(PairSet(name, tuple(pairs), tuple(distractors)))


def without_missing(pair_set: PairSet) -> PairSet:
    """`pair_set` without the pairs that lack an image; missing files are added to `skipped`, in the order of the list.

    Raises DataError when no pair is left, or no tile to look up.
    """
    listed = [path for pair in pair_set.pairs for path in (pair.ground, *pair.right, *pair.semi_positives)]
    missing = _missing(dict.fromkeys((*listed, *pair_set.distractors)))
    return pair_set.without(Skipped(path, "missing") for path in missing)


def _missing(paths: Iterable[Path]) -> Iterator[Path]:
    """The paths that are not files. Checked in parallel because a network disk is slow."""
    paths = list(paths)
    parts = [paths[first : first + _PART] for first in range(0, len(paths), _PART)]
    with ThreadPoolExecutor(16) as pool:
        for absent in pool.map(_absent, parts):
            yield from absent


def _absent(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113 (Path.is_file raises for a long name)
