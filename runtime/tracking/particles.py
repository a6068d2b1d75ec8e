"""Particles: many poses that a vehicle may have, each as a place and a heading, with a weight.

Knows motion and resampling; knows nothing of images or of when a track is lost.
Source: Thrun, Burgard and Fox, Probabilistic Robotics, 2005, chapters 4, 5 and 8.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.geodesy import circular_mean, distance, east_north, moved
from geodtr.runtime.tracking.odometry import Motion

Floats = NDArray[np.float64]


def chord(
    heading: float | Floats, turn: float | Floats, forward: float | Floats, right: float | Floats
) -> tuple[Floats, Floats]:
    """Metres east and north after so many forward and to the right, on an arc that begins at `heading` (degrees): its
    chord points along the mean of the headings at its ends.
    """
    course = np.radians(heading + turn / 2)
    sine, cosine = np.sin(course), np.cos(course)
    return forward * sine + right * cosine, forward * cosine - right * sine


@dataclass(frozen=True, slots=True)
class MotionNoise:
    """How far odometry may be off, each a standard deviation: shares of what was measured, and what adds up with time.

    `acceleration` (m/s²) and `turning` (degrees/s²) stand for what happens between two rows and is not measured: they
    grow with the square of the time, and so a gap in the odometry widens the belief as it should.
    """

    scale: float = 0.05
    """Of the odometry's scale, as a share: a tyre's radius is off by the same all the way, and each particle supposes
    one."""
    scale_drift: float = 0.005
    """By the root of the seconds, without which only a few suppositions would be left after a while (Gordon, Salmond
    and Smith, 1993)."""
    distance_share: float = 0.02
    turn_share: float = 0.05
    drift: float = 0.3
    """Metres in every direction, by the root of the seconds."""
    turn_drift: float = 1.0
    """Degrees by the root of the seconds."""
    acceleration: float = 1.0
    turning: float = 5.0


@dataclass(frozen=True, slots=True)
class Particles:
    """P poses: lat, lon and heading in degrees, how long a metre of the odometry is, and weights of sum 1; float64 [P]
    each.
    """

    lat: Floats
    lon: Floats
    heading: Floats
    scale: Floats
    weight: Floats

    def move(self, motion: Motion, noise: MotionNoise, random: np.random.Generator) -> "Particles":
        """Every pose after `motion`, each with an error of its own (table 5.6's idea, for speed and yaw)."""
        count, root = len(self.lat), np.sqrt(motion.seconds)
        unseen = motion.seconds**2 / 2
        turn_error = np.sqrt(
            (noise.turn_share * motion.turn) ** 2 + (noise.turn_drift * root) ** 2 + (noise.turning * unseen) ** 2
        )
        gone = np.hypot(motion.distance, motion.right)
        distance_error = np.hypot(noise.distance_share * gone, noise.acceleration * unseen)
        turn = motion.turn + turn_error * random.standard_normal(count)
        forward = self.scale * motion.distance + distance_error * random.standard_normal(count)
        drift = noise.drift * root * random.standard_normal((2, count))
        east, north = chord(self.heading, turn, forward, self.scale * motion.right)
        lat, lon = moved(self.lat, self.lon, east + drift[0], north + drift[1])
        scale = self.scale + noise.scale_drift * root * random.standard_normal(count)
        return replace(self, lat=lat, lon=lon, heading=np.mod(self.heading + turn, 360), scale=scale)

    def resampled(self, random: np.random.Generator) -> "Particles":
        """As many poses, each drawn as often as it weighs, with equal weights: systematic resampling, which draws one
        number for all (low variance sampler, table 4.4; Carpenter, Clifford and Fearnhead, 1999).
        """
        count = len(self.weight)
        rising = np.cumsum(self.weight)
        at = (random.random() + np.arange(count)) * (rising[-1] / count)
        rows = np.minimum(np.searchsorted(rising, at, side="right"), count - 1)
        lat, lon, heading, scale = (values[rows] for values in self._pose)
        return Particles(lat, lon, heading, scale, np.full(count, 1 / count))

    def replaced(self, rows: NDArray[np.int64], others: "Particles") -> "Particles":
        """The same with the poses of `others` in `rows`; weights stay."""
        lat, lon, heading, scale = pose = [values.copy() for values in self._pose]
        for values, other in zip(pose, others._pose, strict=True):
            values[rows] = other
        return Particles(lat, lon, heading, scale, self.weight)

    @property
    def _pose(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.lat, self.lon, self.heading, self.scale

    @property
    def effective(self) -> float:
        """How many equal weights would be as uneven (Kong, Liu and Wong, 1994)."""
        return float(1 / (self.weight @ self.weight))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where most particles are: the weighted mean place and heading in degrees, `share` of all weight that lies within
    reach of it, and the radii in metres that hold 68 % and 95 % of the weight of *all* particles.
    """

    lat: float
    lon: float
    heading: float
    share: float
    within_68: float
    within_95: float


def densest(particles: Particles, reach: float) -> Cluster:
    """The heaviest cluster of particles, `reach` metres around its mean: the fullest cell of a grid, then mean shift
    (Comaniciu and Meer, 2002). A mean of all particles could be a point between two clusters, without any particle.
    """
    weight = particles.weight
    origin = int(np.argmax(weight))
    east, north = east_north(particles.lat, particles.lon, particles.lat[origin], particles.lon[origin])
    cells = np.floor(np.stack([east, north]) / reach).astype(np.int64)
    _, cell = np.unique(cells[0] * (1 << 32) + cells[1], return_inverse=True)
    inside = cell == np.argmax(np.bincount(cell, weight))
    for _ in range(3):
        share = weight[inside] / weight[inside].sum()
        x, y = share @ east[inside], share @ north[inside]
        inside = np.hypot(east - x, north - y) <= reach
        if not inside.any():
            break
    lat, lon = (float(value) for value in moved(particles.lat[origin], particles.lon[origin], x, y))
    away = distance(lat, lon, particles.lat, particles.lon)
    order = np.argsort(away)
    within = np.searchsorted(np.cumsum(weight[order]), (0.68, 0.95))
    radii = away[order[np.minimum(within, len(order) - 1)]]
    near = away <= reach
    heading = circular_mean(particles.heading[near], weight[near]) if near.any() else 0.0
    return Cluster(lat, lon, heading, float(weight[near].sum()), float(radii[0]), float(radii[1]))
