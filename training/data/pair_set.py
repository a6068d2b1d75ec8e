"""A set of pairs: which ground image belongs to which aerial tile, and where on Earth if that is known.

Knows paths and coordinates; reads no pixels.
"""

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import DataError
from geodtr.runtime.files import hash_files, readable
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.recall import Matches


@dataclass(frozen=True, slots=True)
class Pair:
    """One ground image and its aerial tile. `lat`, `lon` in degrees (WGS 84), `heading` clockwise from north.

    `utm` is easting and northing in metres, for data sets that give those alone. `semi_positives` are tiles that show
    the place as well, off their centre: they are left out of its ranking.
    """

    ground: Path
    aerial: Path
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    utm: tuple[float, float] | None = None
    semi_positives: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that a data set lists and that cannot be used, and why."""

    path: Path
    reason: str


def describe_skipped(data: str, skipped: Sequence[Skipped]) -> str:
    """Which files of the data set `data` were left out, in words."""
    first = skipped[0]
    return (
        f"{len(skipped)} files of {data} are left out with their pairs, the first: {first.path} ({first.reason}). "
        f"To see them all: geodtr-export data check {data}"
    )


@dataclass(frozen=True)
class PairSet:
    """Pairs in a stable order; `name` is the SPEC they were read by. Never empty.

    Several pairs may share one tile. `distractors` are tiles that belong to no pair and are searched all the same.
    `skipped` are the files that were listed and could not be used, with their pairs left out. `made_from` is the SPEC
    of the set that a prepared one was made from.
    """

    name: str
    pairs: tuple[Pair, ...]
    distractors: tuple[Path, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    made_from: str | None = None

    @property
    def source(self) -> str:
        """The SPEC of the images as they were taken, which tells the area they show."""
        return self.made_from or self.name

    def __post_init__(self) -> None:
        if not self.pairs:
            first = ""
            if self.skipped:
                bad = self.skipped[0]
                first = f" The first of {len(self.skipped)} files that cannot be used: {bad.path} ({bad.reason})."
            raise DataError(f"{self.name} holds no pairs.{first} Check the path and the split.")

    def __len__(self) -> int:
        return len(self.pairs)

    def paths(self, branch: Branch) -> list[Path]:
        """The images of one branch, one for each pair, in the set's order."""
        return [pair.ground if branch == "ground" else pair.aerial for pair in self.pairs]

    def images(self, branch: Branch) -> list[Path]:
        """The images of one branch, each once."""
        return list(dict.fromkeys(self.paths("ground"))) if branch == "ground" else self.references

    @cached_property
    def references(self) -> list[Path]:
        """Every tile once: those of the pairs in the pairs' order, semi-positives, then distractors."""
        semi_positives = (path for pair in self.pairs for path in pair.semi_positives)
        return list(dict.fromkeys((*self.paths("aerial"), *semi_positives, *self.distractors)))

    @cached_property
    def tiles(self) -> NDArray[np.int64]:
        """The row among `references` of each pair's tile, int64 [N]: pairs with equal numbers are no negatives."""
        rows = self._rows()
        return np.array([rows[pair.aerial] for pair in self.pairs], np.int64)

    @property
    def truth(self) -> Matches:
        """The tile of each pair."""
        return Matches(np.arange(len(self.pairs)), self.tiles)

    @property
    def ignored(self) -> Matches | None:
        """The semi-positives of each pair; None where there are none at all."""
        rows = self._rows()
        matches = [(query, rows[path]) for query, pair in enumerate(self.pairs) for path in pair.semi_positives]
        if not matches:
            return None
        query, reference = np.array(matches, np.int64).T
        return Matches(query, reference)

    @readable(DataError)
    def fingerprint(self) -> str:
        """One hex SHA-256 of all that recall is measured on: the contents of the images, in order, and which of them
        belong together. Reads every file; raises DataError when one cannot be read.
        """
        images = hash_files(path for branch in BRANCHES for path in self.images(branch))
        digest = sha256(bytes.fromhex(images))
        grounds = {path: row for row, path in enumerate(self.images("ground"))}
        pairs = [(grounds[pair.ground], tile) for pair, tile in zip(self.pairs, self.tiles.tolist(), strict=True)]
        ignored = [] if self.ignored is None else np.stack([self.ignored.query, self.ignored.reference], 1).tolist()
        digest.update(msgspec.json.encode((pairs, ignored)))
        return digest.hexdigest()

    def within(self, metres: float) -> Matches:
        """Every tile whose pair's `utm` lies at most so many metres from the query's own: the truth by which OriCNN
        counts hits on CVACT_test (5 m). A pair's own tile is always among them.

        Raises DataError when a pair has no `utm`. Needs SciPy.
        """
        from scipy.spatial import cKDTree

        places = [pair.utm for pair in self.pairs if pair.utm is not None]
        if len(places) < len(self.pairs):
            raise DataError(f"{self.name} gives no positions in metres for {len(self.pairs) - len(places)} pairs.")
        tree = cKDTree(np.array(places, np.float64))
        near = tree.query_ball_point(tree.data, metres)
        # Pairs that share a tile name it once each.
        rows = [np.unique(self.tiles[found]) for found in near]
        query = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        return Matches(query, np.concatenate(rows))

    def _rows(self) -> dict[Path, int]:
        return {path: row for row, path in enumerate(self.references)}

    def first(self, count: int) -> "PairSet":
        """The first `count` pairs, all where there are fewer; a limited set is searched without distractors."""
        if count >= len(self.pairs):
            return self
        return replace(self, pairs=self.pairs[:count], distractors=())

    def without(self, bad: Iterable[Skipped]) -> "PairSet":
        """The set without the pairs that use a file in `bad`, which are added to `skipped`."""
        bad = tuple(bad)
        paths = {entry.path for entry in bad}
        return replace(
            self,
            pairs=tuple(_without(paths, self.pairs)),
            distractors=tuple(path for path in self.distractors if path not in paths),
            skipped=self.skipped + bad,
        )


def existing(name: str, pairs: Iterable[Pair], distractors: Iterable[Path] = ()) -> PairSet:
    """The set of those pairs whose two images exist; what is missing is in its `skipped`, in the order of the list.

    Raises DataError when no pair is left.
    """
    pairs, distractors = list(pairs), list(distractors)
    asked = [path for pair in pairs for path in (pair.ground, pair.aerial, *pair.semi_positives)] + distractors
    missing = {path: Skipped(path, "missing") for path in _missing(dict.fromkeys(asked))}
    left = (path for path in distractors if path not in missing)
    return PairSet(name, tuple(_without(missing, pairs)), tuple(left), tuple(missing.values()))


def _without(bad: Container[Path], pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The pairs with both images left, and of their semi-positives those that are left."""
    for pair in pairs:
        if pair.ground not in bad and pair.aerial not in bad:
            semi_positives = tuple(path for path in pair.semi_positives if path not in bad)
            yield pair if semi_positives == pair.semi_positives else replace(pair, semi_positives=semi_positives)


def _missing(paths: Iterable[Path]) -> Iterator[Path]:
    """Those that do not exist; asked in parallel, for a network disk answers slowly."""
    paths = list(paths)
    with ThreadPoolExecutor(16) as pool:
        # Not Path.is_file, which lets errors out: a name too long for the disk does not exist, and that is all.
        there = pool.map(os.path.isfile, paths, chunksize=256)
        yield from (path for path, found in zip(paths, there, strict=True) if not found)
