"""Named places in the generated world: where pairs are rendered, and which coordinates they are given.

Knows world metres, latitudes and longitudes; knows nothing of images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.geodesy import moved
from geodtr.training.world.arrays import Bools, Positions
from geodtr.training.world.style import ARID, TEMPERATE, Style
from geodtr.training.world.terrain import World

APART = 25.0
"""Metres that any two positions of a data set are apart, at least."""

_CANDIDATES = 20_000


@dataclass(frozen=True, slots=True)
class Region:
    """A square of the world, `side` metres wide, around `east`, `north` (world metres) and `lat`, `lon` (degrees)."""

    name: str
    number: int
    """Its own stream of random numbers."""
    east: float
    north: float
    lat: float
    lon: float
    style: Style
    side: float = 30_000.0

    @property
    def capacity(self) -> int:
        """How many positions it takes: less than half of what fits, so that choosing them never stalls."""
        return int((self.side / APART) ** 2 / 12)

    def coordinates(self, positions: Positions) -> NDArray[np.float64]:
        """Latitudes and longitudes in degrees, [B, 2], of positions in this region, [B, 2] world metres.

        A local equirectangular map, true at the centre's latitude: within the region, distances between neighbours are
        those of the world within 0.2 %.
        """
        east, north = positions[:, 0] - self.east, positions[:, 1] - self.north
        return np.stack(moved(self.lat, self.lon, east, north), axis=1)


# The coordinates lie in the open South Atlantic, so that nobody takes a generated place for a real one. Regions are
# about 600 km or more from each other both in world metres and on the globe.
REGIONS = {
    region.name: region
    for region in (
        Region("valley", 0, east=0.0, north=0.0, lat=-30.0, lon=-15.0, style=TEMPERATE),
        Region("coast", 1, east=600_000.0, north=0.0, lat=-30.0, lon=-8.769, style=TEMPERATE),
        Region("plateau", 2, east=0.0, north=600_000.0, lat=-24.604, lon=-15.0, style=TEMPERATE),
        Region("desert", 3, east=600_000.0, north=600_000.0, lat=-24.604, lon=-9.065, style=ARID),
    )
}


def find_region(name: str) -> Region:
    """The region of that name. Raises ConfigError that lists the names there are."""
    try:
        return REGIONS[name]
    except KeyError:
        raise ConfigError(
            f"There is no region {name!r} in the generated world; there are {', '.join(REGIONS)}."
        ) from None


def choose_positions(world: World, region: Region, count: int) -> Positions:
    """`count` camera positions on the region's roads, [count, 2] world metres, at least 25 m apart.

    `world` must be of the region's style, or else the positions lie on another landscape's roads. A smaller count gives
    the first of a larger one. Raises ConfigError when `count` is beyond the region's capacity.
    """
    if count > region.capacity:
        raise ConfigError(
            f"pairs is {count:,}, but region {region.name} takes at most {region.capacity:,}, {APART:g} m apart. "
            f"Ask for fewer, or spread them over the regions {', '.join(REGIONS)}."
        )
    random = np.random.default_rng(np.random.SeedSequence(world.seed, spawn_key=(region.number,)))
    corner = np.array([region.east, region.north]) - region.side / 2
    chosen: dict[tuple[int, int], tuple[float, float]] = {}
    while len(chosen) < count:
        candidates = corner + random.uniform(0, region.side, (_CANDIDATES, 2))
        for east, north in candidates[_on_road(world, candidates)].tolist():
            i, j = int(east // APART), int(north // APART)
            # One position a cell, and none in the cells around it: then any two are a cell's side apart.
            if not any((i + step, j + stride) in chosen for step in (-1, 0, 1) for stride in (-1, 0, 1)):
                chosen[i, j] = (east, north)
    return np.array(list(chosen.values())[:count]).reshape(-1, 2)


def _on_road(world: World, positions: Positions) -> Bools:
    """Which positions lie near the middle of a road, [B]."""
    centre = np.zeros((len(positions), 1), np.float32)
    roads = world.roads(world.frame(positions), centre, centre)
    middle: Bools = (np.abs(roads.distance) < 2.2) & (roads.edge < -1.0)
    return middle[:, 0]
