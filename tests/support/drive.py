"""A generated drive: a smooth path over a grid of tiles, its odometry, and the answers of a simulated search.

The score model replaces a trained one: a tile's score depends on its distance from the vehicle, plus noise. In a share
of the frames the model is wrong: another position gets the scores that the true one would get.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.geodesy import moved
from geodtr.runtime.tracking.filter import SIGHTED, Sighting
from geodtr.runtime.tracking.odometry import Motion

Floats = NDArray[np.float64]

CENTRE = (-30.0, -15.0)
SECONDS = 0.5
SPACING = 40.0
_SIGHT = 25.0  # standard deviation in metres of a tile's score over its distance
_NOISE = 0.1  # standard deviation of the noise on a score; a perfect match scores 0.6
_SPEED_ERROR, _TURN_ERROR = 0.03, 0.3


@dataclass(frozen=True, slots=True)
class Drive:
    """`east`, `north` (metres of CENTRE) and `heading` (degrees) of F frames; `motions` come from the
    odometry, `sightings` from the search; a sighting is None in a gap.
    """

    east: Floats
    north: Floats
    heading: Floats
    motions: tuple[Motion, ...]
    sightings: tuple[Sighting | None, ...]

    @property
    def positions(self) -> tuple[Floats, Floats]:
        """Latitudes and longitudes of the frames."""
        return moved(*CENTRE, self.east, self.north)


def drive(
    seed: int,
    frames: int = 600,
    *,
    side: float = 4000.0,
    wrong: float = 0.3,
    gaps: tuple[range, ...] = (),
    kidnapped: int | None = None,
    headings: bool = False,
) -> Drive:
    """Drive for `frames` half seconds at about 12 m/s within a square of `side` metres. Frames in `gaps` have no
    image. At frame `kidnapped`, the vehicle is moved by half the square and its odometry does not measure it.
    """
    random = np.random.default_rng(seed)
    east, north, heading, speed = _path(random, frames, side)
    if kidnapped is not None:
        east[kidnapped:] = (east[kidnapped:] + side) % side - side / 2
    turns = np.diff(heading, prepend=heading[0])
    scale = 1 + _SPEED_ERROR * random.standard_normal()
    measured = speed * SECONDS * (scale + _SPEED_ERROR * random.standard_normal(frames))
    turned = turns + _TURN_ERROR * random.standard_normal(frames)
    motions = tuple(
        Motion(SECONDS, float(metres), float(degrees)) for metres, degrees in zip(measured, turned, strict=True)
    )

    line = np.arange(-side / 2, side / 2, SPACING) + SPACING / 2
    tiles = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    lat, lon = moved(*CENTRE, tiles[:, 0], tiles[:, 1])
    sightings = list[Sighting | None]()
    for frame in range(frames):
        position = np.array([east[frame], north[frame]])
        if random.random() < wrong:
            position = random.uniform(-side / 2, side / 2, 2)
        scores = 0.6 * np.exp(-((tiles - position) ** 2).sum(axis=1) / (2 * _SIGHT**2))
        scores += _NOISE * random.standard_normal(len(tiles))
        best = np.argsort(-scores)[:SIGHTED]
        headings_seen = (heading[frame] + random.normal(0, 10, len(best))) % 360 if headings else None
        seen = Sighting(scores[best].astype(np.float32), lat[best], lon[best], headings_seen)
        sightings.append(None if any(frame in gap for gap in gaps) else seen)
    return Drive(east, north, heading % 360, motions, tuple(sightings))


def _path(random: np.random.Generator, frames: int, side: float) -> tuple[Floats, Floats, Floats, Floats]:
    """A vehicle with random smooth turns, which steers back to the centre if it is too far away."""
    east, north, heading, speed = np.zeros(frames), np.zeros(frames), np.zeros(frames), np.full(frames, 12.0)
    heading[0], rate = random.uniform(0, 360), 0.0
    for frame in range(1, frames):
        rate = 0.95 * rate + 1.5 * random.standard_normal()
        home = np.degrees(np.arctan2(-east[frame - 1], -north[frame - 1]))
        off = (home - heading[frame - 1] + 180) % 360 - 180
        far = np.hypot(east[frame - 1], north[frame - 1]) > 0.4 * side
        speed[frame] = 12 + 0.95 * (speed[frame - 1] - 12) + 0.3 * random.standard_normal()
        turn = SECONDS * (rate + (0.3 * off if far else 0))
        heading[frame] = heading[frame - 1] + turn
        course = np.radians(heading[frame - 1] + turn / 2)
        east[frame] = east[frame - 1] + SECONDS * speed[frame] * np.sin(course)
        north[frame] = north[frame - 1] + SECONDS * speed[frame] * np.cos(course)
    return east, north, heading, speed
