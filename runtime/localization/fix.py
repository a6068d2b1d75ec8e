"""A fix: one position out of the nearest tiles of one image, and how far the tiles disagree.

Knows scores and places; knows nothing of images, galleries or files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot, log, sqrt

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.geodesy import distance, east_north, moved, within

Floats = NDArray[np.float64]

CANDIDATES = 32
"""How many of an image's nearest tiles a fix is made of: enough to hold the right one where it is not the nearest."""

NEIGHBOURHOOD = 60.0
"""Metres within which tiles support each other: about the side of a tile in the published data sets, beyond which two
tiles no longer show one place."""


SIGMAS_68, SIGMAS_95 = (sqrt(-2 * log(1 - share)) for share in (0.68, 0.95))
"""Radii that hold 68 % and 95 % of a circular Gaussian, in standard deviations of one axis: 1.51 and 2.45."""


def largest_sigma(covariance: tuple[float, float, float]) -> float:
    """The standard deviation along the major axis of a covariance: east east, east north, north north."""
    ee, en, nn = covariance
    return sqrt(max(0.0, (ee + nn) / 2 + hypot((ee - nn) / 2, en)))


@dataclass(frozen=True, slots=True)
class Radius:
    """Of all fixes that claim to lie within `metres`, the share `share` does."""

    share: float
    metres: float


@dataclass(frozen=True, slots=True)
class Fix:
    """A position in degrees (WGS 84), and what the candidates say of it.

    `spread` is the weighted root mean square distance of all candidates from the position, in metres. `margin` is the
    cosine by which the best tile of the winning neighbourhood leads the best one elsewhere (the last candidate where
    there is none); negative where many tiles together outweigh a single one. `within` is empty without a calibration:
    spread and margin alone do not say how far off a position is. `corrected_m` is how far a calibration moved the
    position against a bias, metres east and north; None where it did not.
    """

    lat: float
    lon: float
    spread: float
    margin: float
    within: tuple[Radius, ...] = ()
    corrected_m: tuple[float, float] | None = None


def candidate_weights(scores: NDArray[np.floating]) -> Floats:
    """The weight of each of an image's nearest tiles, float64 [..., K], sum 1; `scores` [..., K], best first.

    For any model, the largest of many scores exceed a threshold by amounts with an exponential distribution (Pickands,
    1975; Balkema and de Haan, 1974). The last candidate's score is that threshold; the median of the others determines
    the scale b. A score of x above it is then exp(x / b) times as likely for the right tile as by chance, up to a
    common factor. So the weights do not change when a model's cosines are scaled or shifted.
    """
    scores = np.asarray(scores, np.float64)
    above = scores - scores[..., -1:]
    scale = np.zeros_like(above[..., :1])
    if above.shape[-1] > 1:
        scale = np.median(above[..., :-1], axis=-1, keepdims=True) / log(2)
    lead = above - above[..., :1]
    weight = np.exp(np.divide(lead, scale, out=np.zeros_like(lead), where=scale > 0))
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True), np.float64)


def fuse(
    scores: NDArray[np.floating], lat: Floats, lon: Floats, neighbourhood: float = NEIGHBOURHOOD
) -> list[Fix | None]:
    """The position that each image's nearest tiles agree on; scores, lat and lon [Q, K] in degrees, best score first.

    The tile whose neighbours within `neighbourhood` metres have the largest total weight wins, and the position is
    their weighted mean; a mean of all candidates would be a point between right and wrong ones. Candidates without a
    position (NaN) are ignored; None when no other is left.
    """
    known = np.isfinite(lat) & np.isfinite(lon)
    counts = known.sum(axis=1)
    fixes: list[Fix | None] = [None] * len(scores)
    for count in set(counts.tolist()) - {0}:
        images = np.flatnonzero(counts == count)
        kept = known[images]
        own = [np.asarray(each[images][kept], np.float64).reshape(-1, count) for each in (scores, lat, lon)]
        for image, fix in zip(images.tolist(), _fused(own[0], own[1], own[2], neighbourhood), strict=True):
            fixes[image] = fix
    return fixes


def _fused(scores: Floats, lat: Floats, lon: Floats, neighbourhood: float) -> Iterator[Fix]:
    """The fixes of images whose candidates all have positions."""
    each = np.arange(len(scores))
    weight = candidate_weights(scores)
    near = _neighbours(lat, lon, neighbourhood)
    winner = np.argmax((near @ weight[..., None])[..., 0], axis=1)
    inside = near[each, winner]
    won = lat[each, winner], lon[each, winner]
    east, north = east_north(lat, lon, won[0][:, None], won[1][:, None])
    share = weight * inside
    share /= share.sum(axis=1, keepdims=True)
    fixed = moved(*won, (share * east).sum(axis=1), (share * north).sum(axis=1))
    apart = distance(fixed[0][:, None], fixed[1][:, None], lat, lon)
    spread = np.sqrt((weight * apart**2).sum(axis=1))
    best = scores[each, np.argmax(inside, axis=1)]
    runner_up = np.where(inside.all(axis=1), scores[:, -1], scores[each, np.argmin(inside, axis=1)])
    margin = best - runner_up
    for values in zip(*(value.tolist() for value in (*fixed, spread, margin)), strict=True):
        yield Fix(*values)


def _neighbours(lat: Floats, lon: Floats, metres: float) -> NDArray[np.bool_]:
    """Which candidates of an image are within so many metres of each other, [Q, K, K]; each is its own neighbour."""
    a, b = np.triu_indices(lat.shape[1], 1)
    near = np.zeros((*lat.shape, lat.shape[1]), bool)
    near[:, a, b] = near[:, b, a] = within(lat[:, a], lon[:, a], lat[:, b], lon[:, b], metres)
    near[:, range(lat.shape[1]), range(lat.shape[1])] = True
    return near
