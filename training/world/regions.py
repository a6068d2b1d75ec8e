"""Named regions of the generated world, in which pairs are rendered, and their coordinates.

Works on world metres, latitudes and longitudes only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ArgumentError, ConfigError
from geodtr.runtime.geodesy import moved
from geodtr.training.world.arrays import Bools, Positions
from geodtr.training.world.style import ARID, TEMPERATE, Style
from geodtr.training.world.terrain import World

APART = 25.0
"""Minimum distance in metres between two positions of a data set."""

_CANDIDATES = 20_000


@dataclass(frozen=True, slots=True)
class Region:
    """A square of the world, `side` metres wide, around `east`, `north` (world metres) and `lat`, `lon` (degrees)."""

    name: str
    number: int
    """Selects the stream of random numbers."""
    east: float
    north: float
    lat: float
    lon: float
    style: Style
    side: float = 30_000.0

    @property
    def capacity(self) -> int:
        """Maximum number of positions: less than half of what fits, so that the random choice never stalls."""
        return int((self.side / APART) ** 2 / 12)

    def coordinates(self, positions: Positions) -> NDArray[np.float64]:
        """Latitudes and longitudes in degrees, [B, 2], of positions in this region, [B, 2] world metres.

        A local equirectangular map, true at the centre's latitude. Within the region, distances between neighbours
        differ by less than 0.2 %.
        """
        east, north = positions[:, 0] - self.east, positions[:, 1] - self.north
        return np.stack(moved(self.lat, self.lon, east, north), axis=1)


# The coordinates are in the open South Atlantic, so that generated locations cannot be mistaken for real ones. Regions
# are about 600 km or more from each other both in world metres and on the globe.
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
    """The region called `name`. Raises ConfigError, which lists the names, when there is none."""
    try:
        return REGIONS[name]
    except KeyError:
        raise ConfigError(
            f"There is no region {name!r} in the generated world; allowed: {', '.join(REGIONS)}."
        ) from None


def choose_positions(world: World, region: Region, count: int, *, on_roads: bool = True) -> Positions:
    """`count` camera positions in the region, [count, 2] world metres, at least 25 m apart, on its roads or anywhere.

    `world` must have the region's style; otherwise its roads are elsewhere. A smaller count gives the first positions
    of a larger one. Raises ConfigError when `count` exceeds the region's capacity.
    """
    if count > region.capacity:
        raise ArgumentError(
            "pairs",
            f"is {count:,}, but region {region.name} takes at most {region.capacity:,}, {APART:g} m apart. Use fewer, "
            f"or spread them over the regions {', '.join(REGIONS)}.",
        )
    random = np.random.default_rng(np.random.SeedSequence(world.seed, spawn_key=(region.number,)))
    corner = np.array([region.east, region.north]) - region.side / 2
    occupied: dict[tuple[int, int], tuple[float, float]] = {}
    while len(occupied) < count:
        candidates = corner + random.uniform(0, region.side, (_CANDIDATES, 2))
        allowed = candidates[_on_road(world, candidates)] if on_roads else candidates
        for east, north in allowed.tolist():
            i, j = int(east // APART), int(north // APART)
            # One position per cell and none in the cells around it, so that any two are a cell's side apart.
            if not any((i + step, j + stride) in occupied for step in (-1, 0, 1) for stride in (-1, 0, 1)):
                occupied[i, j] = (east, north)
    return np.array(list(occupied.values())[:count]).reshape(-1, 2)


def _on_road(world: World, positions: Positions) -> Bools:
    """Which positions are near the middle of a road, [B]."""
    centre = np.zeros((len(positions), 1), np.float32)
    roads = world.roads(world.frame(positions), centre, centre)
    middle: Bools = (np.abs(roads.distance) < 2.2) & (roads.edge < -1.0)
    return middle[:, 0]
