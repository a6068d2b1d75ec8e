"""A fix: one position out of the nearest tiles of one image, and how far the tiles disagree.

Knows scores and places; knows nothing of images, galleries or files.
"""

from dataclasses import dataclass
from math import hypot, log, sqrt

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.geodesy import distance, east_north, moved

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
    """The weight of each of an image's nearest tiles, float64 [K], sum 1; `scores` [K], best first.

    For any model, the largest of many scores exceed a threshold by amounts with an exponential distribution (Pickands,
    1975; Balkema and de Haan, 1974). The last candidate's score is that threshold; the median of the others determines
    the scale b. A score of x above it is then exp(x / b) times as likely for the right tile as by chance, up to a
    common factor. So the weights do not change when a model's cosines are scaled or shifted.
    """
    above = np.asarray(scores, np.float64) - float(scores[-1])
    scale = float(np.median(above[:-1])) / log(2) if len(above) > 1 else 0.0
    if scale <= 0:
        return np.full(len(above), 1 / len(above))
    weight = np.exp((above - above[0]) / scale)
    return np.asarray(weight / weight.sum(), np.float64)


def fuse(scores: NDArray[np.floating], lat: Floats, lon: Floats, neighbourhood: float = NEIGHBOURHOOD) -> Fix | None:
    """The position that an image's nearest tiles agree on; scores, lat and lon [K] in degrees, best score first.

    The tile whose neighbours within `neighbourhood` metres have the largest total weight wins, and the position is
    their weighted mean; a mean of all candidates would be a point between right and wrong ones. Candidates without a
    position (NaN) are ignored; None when no other is left.
    """
    known = np.isfinite(lat) & np.isfinite(lon)
    if not known.any():
        return None
    scores, lat, lon = scores[known], lat[known], lon[known]
    weight = candidate_weights(scores)
    near = distance(lat[:, None], lon[:, None], lat, lon) <= neighbourhood
    winner = int(np.argmax(near @ weight))
    inside = near[winner]
    east, north = east_north(lat[inside], lon[inside], lat[winner], lon[winner])
    share = weight[inside] / weight[inside].sum()
    fixed_lat, fixed_lon = (float(value) for value in moved(lat[winner], lon[winner], share @ east, share @ north))
    spread = np.sqrt(weight @ distance(fixed_lat, fixed_lon, lat, lon) ** 2)
    elsewhere = scores[~inside]
    runner_up = elsewhere[0] if len(elsewhere) else scores[-1]
    return Fix(fixed_lat, fixed_lon, float(spread), float(scores[inside][0]) - float(runner_up))
