"""Fits a projection to the descriptors of pairs: principal directions, whitened or not, or what training makes of them.

Knows rows of numbers. Models, images and graphs are out of scope.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geodtr.export.projection import BLOCK, Projection
from geodtr.export.statistics import mcnemar, paired_drop
from geodtr.runtime.errors import ArgumentError, DataError
from geodtr.runtime.manifest import WhiteningTrial
from geodtr.runtime.matches import Matches
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import rank
from geodtr.runtime.spec import Descriptors
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import DescriptorPair

WHITENING = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The strengths that are tried: 0 leaves the principal directions as they are, 1 gives all the same variance."""
_ROUNDING = float(np.finfo(np.float32).eps) ** 2
"""Of a variance: descriptors are float32."""
_CHANCE = 0.05

_Floats = NDArray[np.float64]
_Mask = NDArray[np.bool_]
_Choice = TypeVar("_Choice", bound=Hashable)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A projection, how it was chosen, and the share of the variance that it keeps.

    `trials`: every strength of whitening, on `queries` pairs, each held out once; `layer_hits`: of a layer trained from
    `whitening` on, which `projection` is if `is_trained`; `full_hits`: of the descriptors as they were, on the same
    pairs. `variance` is of the principal directions.
    """

    projection: Projection
    whitening: float
    variance: float
    queries: int
    full_hits: int
    trials: tuple[WhiteningTrial, ...]
    layer_hits: int
    is_trained: bool


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """The principal directions of pairs in which these differ, beyond rounding, by falling variance.

    `vectors`: float64 [D, R], orthonormal columns. `variances`: float64 [R]. `means`: float64 [D], by branch.
    """

    vectors: _Floats
    variances: _Floats
    means: Mapping[Branch, _Floats]

    @classmethod
    def of(cls, rows: Mapping[Branch, Descriptors]) -> "Principal":
        """Of each branch's rows about its own mean, both branches with the same weight.

        A branch's mean is what all its images have in common, panoramas or tiles: the same at every place.
        """
        means = {branch: rows[branch].mean(axis=0, dtype=np.float64) for branch in BRANCHES}
        count, size = sum(len(rows[branch]) for branch in BRANCHES), rows["ground"].shape[1]
        if count < size:
            # The products of rows with each other have the same variances, and are fewer (Turk and Pentland, 1991).
            centred = np.concatenate(
                [(rows[branch] - means[branch]) / np.sqrt(len(rows[branch])) for branch in BRANCHES]
            )
            variances, weights = _by_falling_variance(centred @ centred.T)
            vectors = centred.T @ (weights / np.sqrt(variances))
        else:
            covariance = np.zeros((size, size))
            for branch in BRANCHES:
                for start in range(0, len(rows[branch]), BLOCK):
                    part = rows[branch][start : start + BLOCK] - means[branch]
                    covariance += part.T @ part / len(rows[branch])
            variances, vectors = _by_falling_variance(covariance)
        # A direction has two signs, and a library may give either.
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
        return cls(vectors * np.where(largest < 0, -1.0, 1.0), variances, means)

    @property
    def rank(self) -> int:
        """Number of directions in which the rows differ, beyond rounding."""
        return len(self.variances)

    def project_to(self, size: int, whitening: float) -> Projection:
        """The first `size` directions, each divided by its standard deviation to the power of `whitening`."""
        # Relative to the first, which only changes a length that is divided away.
        scales = (self.variances[:size] / self.variances[0]) ** (-whitening / 2)
        weights = (self.vectors[:, :size] * scales).astype(np.float32)
        bias = {branch: (-self.means[branch] @ weights.astype(np.float64)).astype(np.float32) for branch in BRANCHES}
        return Projection(weights, bias)


_Fit = Callable[[Principal, _Mask], Projection]
"""Fits a projection to the chosen pairs, given their directions."""


def _by_falling_variance(covariance: _Floats) -> tuple[_Floats, _Floats]:
    """The variances of a symmetric matrix beyond rounding, and its unit vectors, in columns."""
    variances, vectors = np.linalg.eigh(covariance)
    beyond = variances > len(variances) * _ROUNDING * variances[-1]
    return variances[beyond][::-1], vectors[:, beyond][:, ::-1]


class Fitting:
    """Fits projections to the descriptors of pairs, of any size.

    The strength of whitening is chosen by recall. Each half of the tiles, with their pairs, is projected by the
    directions of the other half, and searched by itself. The weakest strength is taken that the one with most hits at
    rank 1 does not beat by more than chance (McNemar's test, 5 %), because a stronger one changes more answers, for
    better or worse. A linear layer that is trained from there on is held against it in the same way, and taken if it
    finds more, beyond chance. The projection is then fitted to all pairs.

    Whitening: Jégou and Chum, "Negative evidences and co-occurrences in image retrieval: the benefit of PCA and
    whitening", ECCV 2012. Between none and all of it, "attenuated": Mukundan et al., "Understanding and improving
    kernel local descriptors", IJCV 2019.
    """

    def __init__(self, pairs: DescriptorPair) -> None:
        self._pairs = pairs
        self._halves = _halves(pairs.pair_set)
        self._principal: tuple[Principal, Principal, Principal] | None = None

    def to(self, size: int, *, track: Track = untracked) -> Fitted:
        """The projection to `size` numbers.

        Raises
        ------
        ConfigError
            `size` is not below the number that the descriptors have.
        DataError
            There are too few pairs (see `check_count`), or their descriptors differ in fewer than `size` directions.
        """
        check_size(size, self._pairs.ground.shape[1])
        check_count(size, self._pairs.pair_set)
        *of_halves, of_all = self._directions(track)
        ranks = min(each.rank for each in of_halves), of_all.rank
        if min(ranks) < size:
            raise DataError(
                f"The descriptors of {self._pairs.pair_set.name} differ in {ranks[1]} directions, half of them in "
                f"{ranks[0]}; {size} are wanted. Name more pairs by --compact-on, or at most --descriptor-size "
                f"{min(ranks)}."
            )
        strengths = track(WHITENING, "Fitting the projection", len(WHITENING))
        by_strength = {strength: self._found(_whitened(size, strength)) for strength in strengths}
        whitening = first_unbeaten(by_strength)
        layer = self._found(lambda directions, rest: self._trained(directions.project_to(size, whitening), rest, track))
        is_trained = first_unbeaten({False: by_strength[whitening], True: layer})
        projection = of_all.project_to(size, whitening)
        if is_trained:
            projection = self._trained(projection, np.ones(len(layer), np.bool_), track)
        return Fitted(
            projection=projection,
            whitening=whitening,
            variance=float(of_all.variances[:size].sum() / of_all.variances.sum()),
            queries=len(self._pairs.ground),
            full_hits=int(self._found(None).sum()),
            trials=tuple(
                WhiteningTrial(whitening=strength, hits=int(hits.sum())) for strength, hits in by_strength.items()
            ),
            layer_hits=int(layer.sum()),
            is_trained=is_trained,
        )

    @property
    def directions(self) -> Principal:
        """Of all pairs."""
        return self._directions()[2]

    def _directions(self, track: Track = untracked) -> tuple[Principal, Principal, Principal]:
        """Of each half, and of all pairs; computed once."""
        if self._principal is None:
            parts = (*map(self._rows, self._halves), {branch: self._pairs[branch] for branch in BRANCHES})
            first, second, of_all = (Principal.of(rows) for rows in track(parts, "Finding principal directions", 3))
            self._principal = first, second, of_all
        return self._principal

    def _rows(self, chosen: _Mask) -> dict[Branch, Descriptors]:
        """The ground rows of the chosen pairs, and their tiles, each once."""
        tiles = np.unique(self._pairs.pair_set.tiles[chosen])
        return {"ground": self._pairs.ground[chosen], "aerial": self._pairs.aerial[tiles]}

    def _trained(self, start: Projection, chosen: _Mask, track: Track) -> Projection:
        """What the chosen pairs make of `start`."""
        from geodtr.export.projection.layer import train_layer

        tiles = self._pairs.pair_set.tiles[chosen]
        own = np.searchsorted(np.unique(tiles), tiles)
        return train_layer(start, self._rows(chosen), own, _known(self._pairs.pair_set, chosen), track=track)

    def _found(self, fit: _Fit | None) -> _Mask:
        """Whether each pair is a hit at rank 1 where its half is held out and the other fitted to; None: of the
        descriptors as they are.
        """
        first = np.empty(len(self._pairs.ground), np.bool_)
        first_half, second_half, _ = self._directions()
        for held, rest, directions in zip(self._halves, self._halves[::-1], (second_half, first_half), strict=True):
            rows = self._rows(held)
            if fit is not None:
                projection = fit(directions, rest)
                rows = {branch: projection.project(branch, rows[branch]) for branch in BRANCHES}
            truth, left_out = _within(self._pairs.pair_set, held)
            first[held] = rank(rows["ground"], rows["aerial"], truth, left_out).rank == 0
        return first


def _whitened(size: int, strength: float) -> _Fit:
    return lambda directions, _: directions.project_to(size, strength)


def _halves(pair_set: PairSet) -> tuple[_Mask, _Mask]:
    """Which pairs are of every second tile, bool [pairs], and which of the others."""
    even = pair_set.tiles % 2 == 0
    return even, ~even


def _within(pair_set: PairSet, half: _Mask) -> tuple[Matches, Matches | None]:
    """What is right for the pairs of a half, and what is left out of their rankings, of the tiles of the half, by the
    rows of `Fitting._rows`.
    """
    tiles, query_rows = np.unique(pair_set.tiles[half]), np.cumsum(half) - 1

    def inside(matches: Matches) -> Matches:
        kept = half[matches.query] & np.isin(matches.reference, tiles)
        return Matches(query_rows[matches.query[kept]], np.searchsorted(tiles, matches.reference[kept]))

    left_out = pair_set.left_out
    return inside(pair_set.truth), None if left_out is None else inside(left_out)


def _known(pair_set: PairSet, chosen: _Mask) -> Matches:
    """The tiles that are right for each of the chosen pairs, or left out of its ranking, by the rows of `_rows`."""
    truth, left_out = _within(pair_set, chosen)
    if left_out is None:
        return truth
    query = np.concatenate([truth.query, left_out.query])
    reference = np.concatenate([truth.reference, left_out.reference])
    order = np.argsort(query, kind="stable")
    return Matches(query[order], reference[order])


def first_unbeaten(found: Mapping[_Choice, _Mask]) -> _Choice:
    """The first choice that the one with most hits does not beat by more than chance."""
    best = max(found, key=lambda choice: int(found[choice].sum()))

    def beaten(hits: _Mask) -> bool:
        drop = paired_drop(found[best], hits)
        return drop.lost > drop.gained and mcnemar(drop.lost, drop.gained) < _CHANCE

    return next(choice for choice, hits in found.items() if not beaten(hits))


def check_size(size: int, full: int) -> None:
    """Raise ConfigError unless descriptors of `full` numbers can be made shorter to `size`."""
    if size >= full:
        raise ArgumentError(
            "descriptor_size",
            f"is {size}, and a projection makes the model's {full} numbers fewer; allowed are 1 to {full - 1}.",
        )


def check_count(size: int, pair_set: PairSet) -> None:
    """Raise DataError when a set has too few pairs for a projection to `size` numbers.

    Directions are first taken of half of the tiles, with their pairs: at most as many as there are images, less the two
    means.
    """
    most = min(int(half.sum()) + len(np.unique(pair_set.tiles[half])) - 2 for half in _halves(pair_set))
    if most < size:
        few = "too few for any" if most < 1 else f"or at most --descriptor-size {most}"
        raise DataError(
            f"{pair_set.name} has {len(pair_set)} usable pairs; half of its tiles, with their pairs, differ in at most "
            f"{max(most, 0)} directions, and {size} are wanted. Name more by --compact-on SPEC, {few}."
        )
