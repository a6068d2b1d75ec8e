"""A set of pairs: ground images, their aerial tiles, and positions if known.

Works on paths and coordinates; reads no pixels.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import DataError
from geodtr.runtime.files import hash_files, readable
from geodtr.runtime.matches import Matches
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.data.views import ALL, View, Views


@dataclass(frozen=True, slots=True)
class Pair:
    """One ground image and its aerial tile. `lat`, `lon` in degrees (WGS 84), `heading` clockwise from north.

    `utm` is easting and northing in metres, for data sets without degrees. `semi_positives` are tiles that show the
    location off their centre; the hit rate leaves them out of the ranking. `positives` are further tiles that are as
    right as `aerial`. `view`: what is seen of the ground image, a full panorama; None for all of it.
    """

    ground: Path
    aerial: Path
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    utm: tuple[float, float] | None = None
    semi_positives: tuple[Path, ...] = ()
    view: View | None = None
    positives: tuple[Path, ...] = ()

    @property
    def right(self) -> tuple[Path, ...]:
        """Every tile that is right, the pair's own first."""
        return (self.aerial, *self.positives)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A listed file that cannot be used, and the reason, which may name the file."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return self.reason if str(self.path) in self.reason else f"{self.path} ({self.reason})"


def describe_skipped(data: str, skipped: Sequence[Skipped]) -> str:
    """A message about the skipped files of the data set `data`."""
    return (
        f"{len(skipped)} files of {data} are left out with their pairs, the first: {str(skipped[0]).rstrip('.')}. "
        f"To list all: geodtr-export data check {data}"
    )


@dataclass(frozen=True)
class PairSet:
    """Pairs in a stable order. Never empty.

    Attributes
    ----------
    name
        SPEC of the set.
    pairs
        Several pairs may share one tile.
    distractors
        Tiles that belong to no pair, but are in the gallery.
    skipped
        Listed files that cannot be used; their pairs are left out.
    made_from
        SPEC of the original set, for a prepared one.
    views
        What is seen of its panoramas; each pair has its own.
    tile_queries
        Tiles to look up among the ground images, each of which is a pair's. Without them, evaluation looks up the
        ground images among the tiles.
    positions
        Where images are, for papers that measure distance: x and y in the unit of the data set's kind. Not of a
        prepared set.
    maps
        Sets of tiles, one for each of several maps: a ground image is looked up on the map of its own tile. Empty if
        all tiles are searched.
    """

    name: str
    pairs: tuple[Pair, ...]
    distractors: tuple[Path, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    made_from: str | None = None
    views: Views = ALL
    tile_queries: tuple[Path, ...] = ()
    maps: tuple[frozenset[Path], ...] = ()
    positions: Mapping[Path, tuple[float, float]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """SPEC of the original images; it identifies the area."""
        return self.made_from or self.name

    def __post_init__(self) -> None:
        if not self.pairs:
            if not self.skipped:
                raise DataError(f"{self.name} holds no pairs. Check the path and the split.")
            raise DataError(
                f"{str(self.skipped[0]).rstrip('.')}: the first of {len(self.skipped)} files that cannot be used. "
                f"Without their pairs, {self.name} holds no pairs. Replace the files, or correct the path."
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def paths(self, branch: Branch) -> list[Path]:
        """The image of each pair for one branch, in order."""
        return [pair.ground if branch == "ground" else pair.aerial for pair in self.pairs]

    def images(self, branch: Branch) -> list[Path]:
        """The images of one branch, each once."""
        return list(dict.fromkeys(self.paths("ground"))) if branch == "ground" else self.references

    @cached_property
    def references(self) -> list[Path]:
        """Every tile once: tiles of the pairs in order, then further ones of theirs, then distractors."""
        others = (path for pair in self.pairs for path in (*pair.positives, *pair.semi_positives))
        return list(dict.fromkeys((*self.paths("aerial"), *others, *self.distractors)))

    def rows(self, branch: Branch) -> list[Path]:
        """The image of each row of a branch's descriptors: the panorama of each pair, or every tile once."""
        return self.paths("ground") if branch == "ground" else self.references

    @cached_property
    def tiles(self) -> NDArray[np.int64]:
        """The row of each pair's tile in `references`, int64 [N]."""
        return np.array([self.tile_rows[pair.aerial] for pair in self.pairs], np.int64)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The number of each pair's place, int64 [N]: pairs of one place are not negatives of each other. Pairs that
        share a right tile are of one place, and so are all that a chain of such pairs connects. Needs SciPy.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        truth, size = self.truth, len(self.references)
        shared = coo_array((np.ones(len(truth.query)), (self.tiles[truth.query], truth.reference)), (size, size))
        return np.asarray(connected_components(shared, directed=False)[1][self.tiles], np.int64)

    @property
    def truth(self) -> Matches:
        """The tiles that are right for each pair."""
        return self._matches(lambda pair: pair.right)

    @property
    def ignored(self) -> Matches | None:
        """The semi-positives of each pair; None if no pair has any."""
        matches = self._matches(lambda pair: pair.semi_positives)
        return matches if len(matches.query) else None

    @property
    def on_other_maps(self) -> Matches | None:
        """The tiles of each pair that are on another map than its own tile; None if there is one map."""
        if len(self.maps) < 2:
            return None
        number = {path: index for index, tiles in enumerate(self.maps) for path in tiles}
        of_tile = np.array([number[path] for path in self.references])
        elsewhere = [np.flatnonzero(of_tile != index) for index in range(len(self.maps))]
        others = [elsewhere[index] for index in of_tile[self.tiles].tolist()]
        return Matches(np.repeat(np.arange(len(others)), [len(rows) for rows in others]), np.concatenate(others))

    @cached_property
    def left_out(self) -> Matches | None:
        """The tiles that each pair is not ranked among: its semi-positives, and those on other maps; None if there are
        none.
        """
        parts = [matches for matches in (self.ignored, self.on_other_maps) if matches is not None]
        if not parts:
            return None
        query = np.concatenate([matches.query for matches in parts])
        order = np.argsort(query, kind="stable")
        return Matches(query[order], np.concatenate([matches.reference for matches in parts])[order])

    @readable(DataError)
    def fingerprint(self) -> str:
        """Hex SHA-256 of the images' contents, in order, of their pairing and their views. Reads every file.

        Raises DataError when a file cannot be read.
        """
        images = hash_files(path for branch in BRANCHES for path in self.images(branch))
        digest = sha256(bytes.fromhex(images))
        grounds = {path: row for row, path in enumerate(self.images("ground"))}
        pairs = [
            (grounds[pair.ground], tile, *([] if pair.view is None else astuple(pair.view)))
            for pair, tile in zip(self.pairs, self.tiles.tolist(), strict=True)
        ]
        ignored = [] if self.ignored is None else np.stack([self.ignored.query, self.ignored.reference], 1).tolist()
        digest.update(msgspec.json.encode((pairs, ignored)))
        more = [self.truth.reference.tolist()] if any(pair.positives for pair in self.pairs) else []
        more += [sorted(self.tile_rows[path] for path in group) for group in (self.tile_queries, *self.maps) if group]
        if more:
            digest.update(msgspec.json.encode(more))
        return digest.hexdigest()

    def within(self, metres: float) -> Matches:
        """All tiles whose pair is at most `metres` from the query, by `utm`; includes the pair's own tile.

        OriCNN counts hits on CVACT_test this way, with 5 m. Raises DataError when a pair has no `utm`. Needs SciPy.
        """
        from scipy.spatial import cKDTree

        positions = [pair.utm for pair in self.pairs if pair.utm is not None]
        if len(positions) < len(self.pairs):
            raise DataError(f"{self.name} gives no positions in metres for {len(self.pairs) - len(positions)} pairs.")
        tree = cKDTree(np.array(positions, np.float64))
        neighbours = tree.query_ball_point(tree.data, metres)
        # Pairs may share a tile.
        rows = [np.unique(self.tiles[pairs]) for pairs in neighbours]
        query = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        return Matches(query, np.concatenate(rows))

    @cached_property
    def tile_rows(self) -> dict[Path, int]:
        """The row of each tile in `references`."""
        return {path: row for row, path in enumerate(self.references)}

    def _matches(self, tiles: Callable[[Pair], tuple[Path, ...]]) -> Matches:
        matches = [(query, self.tile_rows[path]) for query, pair in enumerate(self.pairs) for path in tiles(pair)]
        query, reference = np.array(matches, np.int64).reshape(-1, 2).T
        return Matches(query, reference)

    def first(self, count: int) -> "PairSet":
        """At most the first `count` pairs. If pairs are dropped, so are the distractors."""
        if count >= len(self.pairs):
            return self
        return self._of(self.pairs[:count], (), self.skipped)

    def seen(self, views: Views) -> "PairSet":
        """The set with a view of each panorama, by its place in the list. Smaller sets have the same views."""
        pairs = zip(self.pairs, views.of_pairs(len(self)), strict=True)
        return replace(self, pairs=tuple(replace(pair, view=view) for pair, view in pairs), views=views)

    def rows_without(self, bad: Container[Path]) -> NDArray[np.int64]:
        """The rows of the pairs that `without` leaves, int64 [N]."""
        return np.flatnonzero([_is_whole(bad, pair) for pair in self.pairs])

    def without(self, bad: Iterable[Skipped]) -> "PairSet":
        """The set without the pairs that use a file in `bad`; these files are added to `skipped`."""
        bad = tuple(bad)
        paths = {entry.path for entry in bad}
        distractors = tuple(path for path in self.distractors if path not in paths)
        return self._of(tuple(_without(paths, self.pairs)), distractors, self.skipped + bad)

    def _of(self, pairs: tuple[Pair, ...], distractors: tuple[Path, ...], skipped: tuple[Skipped, ...]) -> "PairSet":
        """The set with some of its images. Raises DataError when it has tiles to look up and none of them is left."""
        tiles = {path for pair in pairs for path in pair.right}
        beside = {path for pair in pairs for path in pair.semi_positives}
        left = tuple(path for path in self.tile_queries if path in tiles)
        # Without any, evaluation would look up the ground images instead.
        if pairs and self.tile_queries and not left:
            raise DataError(
                f"{self.name}: none of its tiles to look up is left. Raise --limit, or see which images are damaged: "
                f"geodtr-export data check {self.name}"
            )
        return replace(
            self,
            pairs=pairs,
            distractors=distractors,
            skipped=skipped,
            tile_queries=left,
            maps=tuple(there for tiles_of in self.maps if (there := tiles_of & {*tiles, *beside, *distractors})),
        )


def _without(bad: Container[Path], pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The pairs without a bad image, and without their further tiles that are bad."""
    for pair in pairs:
        if _is_whole(bad, pair):
            positives, semi_positives = (
                tuple(path for path in tiles if path not in bad) for tiles in (pair.positives, pair.semi_positives)
            )
            same = positives == pair.positives and semi_positives == pair.semi_positives
            yield pair if same else replace(pair, positives=positives, semi_positives=semi_positives)


def _is_whole(bad: Container[Path], pair: Pair) -> bool:
    return pair.ground not in bad and pair.aerial not in bad
