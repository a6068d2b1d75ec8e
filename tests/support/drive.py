"""A generated drive: a smooth path over a grid of tiles, what its odometry measured, and what a search would answer.

The score model stands for a trained one: a tile scores by how close it is to the vehicle, and every tile by chance. In
a share of the frames the model is wrong: the true place scores by chance alone and another place as the true one would.
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
_SIGHT = 25.0  # metres at which a tile's score falls off
_CHANCE = 0.1  # standard deviation of a tile's score by chance; a perfect match scores 0.6
_SPEED_ERROR, _TURN_ERROR = 0.03, 0.3


@dataclass(frozen=True, slots=True)
class Drive:
    """`east`, `north` (metres of CENTRE) and `heading` (degrees) of F frames; `motions` as odometry has them, and
    `sightings`, None in a gap.
    """

    east: Floats
    north: Floats
    heading: Floats
    motions: tuple[Motion, ...]
    sightings: tuple[Sighting | None, ...]

    @property
    def places(self) -> tuple[Floats, Floats]:
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
    """Drive for `frames` half seconds at about 12 m/s within a square of `side` metres. `gaps` have no image; at frame
    `kidnapped` the vehicle is carried off by half the square, and its odometry does not notice.
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
        place = np.array([east[frame], north[frame]])
        if random.random() < wrong:
            place = random.uniform(-side / 2, side / 2, 2)
        scores = 0.6 * np.exp(-((tiles - place) ** 2).sum(axis=1) / (2 * _SIGHT**2))
        scores += _CHANCE * random.standard_normal(len(tiles))
        best = np.argsort(-scores)[:SIGHTED]
        found = (heading[frame] + random.normal(0, 10, len(best))) % 360 if headings else None
        seen = Sighting(scores[best].astype(np.float32), lat[best], lon[best], found)
        sightings.append(None if any(frame in gap for gap in gaps) else seen)
    return Drive(east, north, heading % 360, motions, tuple(sightings))


def _path(random: np.random.Generator, frames: int, side: float) -> tuple[Floats, Floats, Floats, Floats]:
    """A vehicle that turns smoothly at random, and back to the middle where it comes too far out."""
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
