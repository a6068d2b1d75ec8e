"""A track: successive frames fused with odometry in a particle filter over the gallery's tiles.

Monte Carlo localisation (Thrun, Burgard and Fox, Probabilistic Robotics, 2005, table 8.2) with the augmentation of
table 8.3: when frames begin to contradict the particles, some are drawn again; here where the frame's own tiles are
(sensor resetting: Lenser and Veloso, 2000), because a gallery is too large to hit by chance. The cost of a step does
not depend on the size of the gallery.

Knows scores, places and motions; knows nothing of images, galleries or files.
"""

from dataclasses import dataclass, field, replace
from math import hypot
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.geodesy import distance, east_north, moved
from geodtr.runtime.localization.fix import candidate_weights
from geodtr.runtime.localization.waypoint import TrackState
from geodtr.runtime.tracking.odometry import Motion
from geodtr.runtime.tracking.particles import Cluster, Floats, MotionNoise, Particles, densest

SIGHTED = 128
"""Number of a frame's nearest tiles that the filter uses: more than a fix, because wrong tiles rarely agree from frame
to frame, so the right one stands out even if it is seldom among the best."""


def sighted(tiles: int) -> int:
    """The number of hits to search for in a gallery of `tiles` tiles: SIGHTED, but at most an eighth of a small
    gallery, because the weights of candidates assume the best few of many.
    """
    return min(SIGHTED, max(8, tiles // 8))


_REACH = 3.0  # sights within which particles count as one cluster
_TRACKING_SHARE, _LOST_SHARE = 0.7, 0.5  # of the particles in one cluster, in the short run
_STEADY_SHARE, _UNSTEADY_SHARE = 0.6, 0.45  # and in the long run: where tiles are far apart, wrong clusters come and go
_PLAIN = 0.1  # of the frames' belief: no wrong cluster explains so much in the short run, and it need not last
_TRACKING, _LOST = 0.02, 0.01  # of the frames' belief that the particles explain, in the short run
_RELEVANT = 1e-3  # minimum weight of a tile
_SHARPEST = 2.0  # metres of sigma: a more exact position would count too few of the particles
_FLAT = 0.1  # of a tile's belief that does not depend on the heading it was found by: streets look alike both ways


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """Options of the filter. Raises ConfigError naming a value out of range.

    `sight`: standard deviation in metres of the vehicle's distance from the centre of its tile, about a quarter of a
    tile's side. `heading_error`: standard deviation in degrees of a searched heading. `doubt`: share of frames with
    uninformative tiles. `slow`, `fast`: rates of the long-term and short-term averages (table 8.3). `renewed`: minimum
    and maximum share of particles drawn again in each frame.
    """

    particles: Annotated[int, Meta(ge=10, le=1_000_000)] = 2000
    seed: int = 0
    sight: Annotated[float, Meta(gt=0)] = 20.0
    heading_error: Annotated[float, Meta(gt=0)] = 15.0
    doubt: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    slow: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    fast: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    renewed: tuple[float, float] = (0.01, 0.1)
    noise: MotionNoise = field(default_factory=MotionNoise)

    def __post_init__(self) -> None:
        check_fields(self)
        least, most = self.renewed
        if not 0 <= least <= most <= 1:
            raise ArgumentError("renewed", f"is {least} to {most}; allowed are two rising shares from 0 to 1.")


@dataclass(frozen=True, slots=True)
class Sighting:
    """The search result of one frame: scores [K] best first, the tiles' positions in degrees [K] (NaN where unknown),
    and the heading of each hit, [K], if headings were searched. `covariance_m2` (east east, east north, north north) is
    how far each is from the vehicle; None for tiles, whose centres are as far as `TrackOptions.sight` states; or as
    `sights`, metres [K], of tiles of several sizes.
    """

    scores: NDArray[np.floating]
    lat: Floats
    lon: Floats
    headings: Floats | None = None
    covariance_m2: tuple[float, float, float] | None = None
    sights: Floats | None = None

    def spread(self, sight: float) -> Floats:
        """The covariance, metres squared [2, 2], east and north."""
        if self.covariance_m2 is None:
            return np.eye(2) * sight**2
        ee, en, nn = self.covariance_m2
        return np.array([(ee, en), (en, nn)]) + np.eye(2) * _SHARPEST**2


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """The filter's estimate of the vehicle's position: degrees (WGS 84), heading clockwise from north.

    `within_68` and `within_95` are radii in metres that contain these shares of the particles' weight; they are not
    calibrated. All are None until the first frame. Trust a position only while the state is `tracking`.
    """

    state: TrackState
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    within_68: float | None = None
    within_95: float | None = None


class Tracker:
    """The filter: each call of `step` returns an estimate. Not safe to call from several threads.

    Equal options and equal steps give equal tracks.
    """

    def __init__(self, options: TrackOptions | None = None) -> None:
        self._options = options or TrackOptions()
        self._random = np.random.default_rng(self._options.seed)
        self._particles: Particles | None = None
        self._state: TrackState = "searching"
        self._last: Cluster | None = None
        self._slow = self._fast = self._share = self._steady = self._gone = 0.0

    def move(self, motion: Motion) -> None:
        """Move every particle by `motion` without an estimate: odometry often has a higher rate than frames."""
        self._gone += hypot(motion.distance, motion.right)
        if self._particles is not None:
            self._particles = self._particles.move(motion, self._options.noise, self._random)

    def step(self, motion: Motion, sighting: Sighting | None = None) -> TrackPoint:
        """Move every particle by `motion`, then weight them by the frame's search result, if there is a frame.

        The filter starts without a prior: the particles begin at the first frame's tiles. A frame whose tiles have no
        position counts as no frame.
        """
        self.move(motion)
        seen = None if sighting is None else _positioned(sighting)
        if self._particles is None:
            if seen is None:
                return TrackPoint("searching")
            self._particles = self._drawn(seen, self._options.particles)
            seen = None  # the particles were drawn from it, so it carries no further information
        if seen is not None:
            self._particles = self._weighed(self._particles, seen)
        cluster = densest(self._particles, _REACH * self._options.sight)
        self._state = self._judged(cluster, odometry_alone=seen is None)
        if seen is not None:
            self._particles = self._renewed(self._particles, seen)
        return TrackPoint(self._state, cluster.lat, cluster.lon, cluster.heading, cluster.within_68, cluster.within_95)

    def _weighed(self, particles: Particles, seen: Sighting) -> Particles:
        """The particles by the frame's likelihood (table 8.3, line 6), and the long and short run of its mean."""
        # A wrong position is as likely in one place as in another, and so the less in a smaller one.
        sight = self._options.sight
        doubt = self._options.doubt * min(1.0, float(np.sqrt(np.linalg.det(seen.spread(sight)))) / sight**2)
        explained = _explained(particles, seen, self._options)
        mean = float(particles.weight @ explained)
        self._slow += self._options.slow * (mean - self._slow)
        self._fast += self._options.fast * (mean - self._fast)
        weight = particles.weight * (doubt + (1 - doubt) * explained)
        return replace(particles, weight=weight / weight.sum())

    def _judged(self, cluster: Cluster, *, odometry_alone: bool) -> TrackState:
        """The state, by how many particles agree in the short and in the long run, and how much of the frames they
        explain.
        """
        last, self._last = self._last, cluster
        gone, self._gone = self._gone, 0.0
        reach = _REACH * self._options.sight
        if last is not None and distance(last.lat, last.lon, cluster.lat, cluster.lon) > reach + gone:
            self._share = self._steady = 0.0  # another cluster leads, farther away than the vehicle can have moved
        if odometry_alone:
            # It can lose a track, and never find one.
            self._share, self._steady = min(self._share, cluster.share), min(self._steady, cluster.share)
        else:
            # Averages, because one misleading frame scatters the particles for a moment.
            self._share += self._options.fast * (cluster.share - self._share)
            self._steady += self._options.slow * (cluster.share - self._steady)
        plain = self._fast >= _PLAIN
        if self._state == "tracking":
            agreeing = self._share >= _LOST_SHARE and (plain or self._steady >= _UNSTEADY_SHARE)
            return "tracking" if agreeing and self._fast >= _LOST else "lost"
        agreeing = self._share >= _TRACKING_SHARE and (plain or self._steady >= _STEADY_SHARE)
        certain = agreeing and self._fast >= _TRACKING
        return "tracking" if certain else self._state

    def _renewed(self, particles: Particles, seen: Sighting) -> Particles:
        """Resample if weights have become uneven, and draw some again if frames contradict them (lines 10 to 15)."""
        least, most = self._options.renewed
        contradicted = 1 - self._fast / self._slow if self._slow > 0 else 0.0
        share = min(most, max(least, contradicted))
        if share <= least and particles.effective > len(particles.weight) / 2:
            return particles
        resampled = particles.resampled(self._random)
        rows = self._random.choice(len(particles.weight), round(share * len(particles.weight)), replace=False)
        return resampled.replaced(rows, self._drawn(seen, len(rows)))

    def _drawn(self, seen: Sighting, count: int) -> Particles:
        """Poses around the frame's tiles, in proportion to their weights."""
        tiles = self._random.choice(len(seen.scores), count, p=candidate_weights(seen.scores))
        offsets = self._random.standard_normal((2, count))
        if seen.sights is None:
            east, north = np.linalg.cholesky(seen.spread(self._options.sight)) @ offsets
        else:
            east, north = seen.sights[tiles] * offsets
        lat, lon = moved(seen.lat[tiles], seen.lon[tiles], east, north)
        if seen.headings is None:
            heading = self._random.uniform(0, 360, count)
        else:
            error = self._options.heading_error * self._random.standard_normal(count)
            heading = np.mod(seen.headings[tiles] + error, 360)
        scale = 1 + self._options.noise.scale * self._random.standard_normal(count)
        return Particles(lat, lon, heading, scale, np.full(count, 1 / max(1, count)))


def _explained(particles: Particles, seen: Sighting, options: TrackOptions) -> Floats:
    """The share of the frame's belief, 0 to 1, that each particle explains by being close to its tiles, [P]."""
    weight = candidate_weights(seen.scores)
    # Most tiles of a frame have a weight that is negligible beside the doubt.
    relevant = weight > _RELEVANT
    east, north = east_north(particles.lat[:, None], particles.lon[:, None], seen.lat[relevant], seen.lon[relevant])
    if seen.sights is None:
        (ee, en), (_, nn) = np.linalg.inv(seen.spread(options.sight)) / -2
        exponent = ee * east**2 + 2 * en * east * north + nn * north**2
    else:
        exponent = (east**2 + north**2) / (-2 * seen.sights[relevant] ** 2)
    closeness = np.exp(exponent.astype(np.float32))
    if seen.headings is not None:
        off = np.abs(particles.heading[:, None] - seen.headings[relevant])
        off = np.minimum(off, 360 - off)
        agreement = np.exp((off**2 / (-2 * options.heading_error**2)).astype(np.float32))
        closeness *= _FLAT + (1 - _FLAT) * agreement
    return np.asarray(closeness @ weight[relevant], np.float64)


def _positioned(sighting: Sighting) -> Sighting | None:
    """The part of a sighting whose tiles have positions; None where none has."""
    known = np.isfinite(sighting.lat) & np.isfinite(sighting.lon)
    if not known.any():
        return None
    headings, sights = (None if each is None else each[known] for each in (sighting.headings, sighting.sights))
    return replace(
        sighting,
        scores=sighting.scores[known],
        lat=sighting.lat[known],
        lon=sighting.lon[known],
        headings=headings,
        sights=sights,
    )
