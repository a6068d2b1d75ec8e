"""The map of the generated world: an endless, seeded network of roads and the land use of the blocks between them.

Two families of roads cross: one of roughly constant u, one of roughly constant v, where u = east + f(north) and
v = north + g(east) bend the plane by sums of sines whose wavelengths have no common period. The land is flat.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from geodtr.training.world.arrays import Bools, Codes, Floats, Ints, Positions
from geodtr.training.world.hashing import Feature, draw
from geodtr.training.world.style import Style

_TURN = 2 * math.pi
_WAVELENGTHS = (1930.0, 617.0, 131.0)
_ABSENT = np.float32(99.0)


class Road(IntEnum):
    """Kinds of roads, from the narrowest."""

    TRACK = 0
    STREET = 1
    AVENUE = 2


_HALF_WIDTHS = np.array([2.2, 3.3, 5.0], np.float32)


class LandUse(IntEnum):
    """Land use of a block between roads."""

    MEADOW = 0
    FIELD = 1
    FOREST = 2
    HOMES = 3
    TOWN = 4
    WATER = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """B origins; points near them are float32 [B, N] metres east and north of their origin.

    Large values (coordinates, road numbers, phases of the waves) are reduced once in float64. The remainders are small
    enough for float32 to hold fractions of a millimetre.
    """

    origins: Positions
    phases: tuple[Floats, Floats]
    """Phases of the waves of f and of g at the origins, [waves, B, 1]."""
    numbers: tuple[Ints, Ints]
    """Number of the nearest road of each family, [B, 1]."""
    remainders: tuple[Floats, Floats]
    """Metres from this road to the origins, before bending, [B, 1]."""


@dataclass(frozen=True, slots=True)
class RoadMap:
    """The road with the nearest edge at each point; every array [B, N]."""

    distance: Floats
    """Signed distance from its centre line in metres."""
    edge: Floats
    """Distance from its edge in metres; negative on the road."""
    other_edge: Floats
    """Distance from the edge of the nearest road of the other family; both are negative on a crossing."""
    kind: Codes
    """Values of Road."""
    along: Floats
    """Metres along the road, for dashed lines; not comparable between locations."""
    east: Floats
    north: Floats
    """The road's direction, a unit vector."""
    block: tuple[Ints, Ints]
    """The lattice cell of the point's block; hash it to draw values that a block shares."""

    @property
    def paved(self) -> Bools:
        return self.kind > Road.TRACK


@dataclass(frozen=True, slots=True)
class _Family:
    """The nearest road of one family at each point; every array [B, N]."""

    distance: Floats
    edge: Floats
    kind: Codes
    block: Ints


class World:
    """One endless map of one style; equal seeds and styles give equal worlds."""

    def __init__(self, seed: int, style: Style) -> None:
        """`seed`: an integer from 0."""
        sequence = np.random.SeedSequence(seed)
        self.seed = seed
        self.style = style
        self._key = int(sequence.generate_state(1)[0])
        self._phases = np.random.default_rng(sequence).uniform(0, _TURN, (2, len(_WAVELENGTHS)))
        # A draw below the first bound gives a track, and so on; above the last bound there is no road.
        self._road_bounds = np.cumsum(style.roads.shares).astype(np.float32)
        self._land_use_bounds = np.cumsum(style.land_use)

    def frame(self, positions: Positions) -> Frame:
        """A frame with origins at `positions`, [B, 2] world metres."""
        east, north = positions[:, :1], positions[:, 1:]
        waves = (_TURN / np.array(_WAVELENGTHS))[:, None, None]
        phases = [
            np.mod(waves * at + phase[:, None, None], _TURN)
            for at, phase in zip((north, east), self._phases, strict=True)
        ]
        spacing = self.style.roads.spacing
        numbers = [np.rint(at / spacing) for at in (east, north)]
        remainders = [at - number * spacing for at, number in zip((east, north), numbers, strict=True)]
        return Frame(
            origins=positions,
            phases=(phases[0].astype(np.float32), phases[1].astype(np.float32)),
            numbers=(numbers[0].astype(np.int32), numbers[1].astype(np.int32)),
            remainders=(remainders[0].astype(np.float32), remainders[1].astype(np.float32)),
        )

    def draw(self, feature: Feature, cell: tuple[Ints, Ints], count: int) -> tuple[Floats, ...]:
        """`count` uniform values in [0, 1) for each lattice cell; constant for this world."""
        return draw(self._key, feature, *cell, count)

    def roads(self, frame: Frame, x: Floats, y: Floats) -> RoadMap:
        """The roads at points x, y: [B, N] metres east and north of the frame's origins."""
        bend_u, slope_u = self._bend(y, frame.phases[0])
        bend_v, slope_v = self._bend(x, frame.phases[1])
        u = x + bend_u + frame.remainders[0]
        v = y + bend_v + frame.remainders[1]
        # Where the plane is bent, a step across the family's roads is shorter than the difference in u (or v).
        stretch_u, stretch_v = np.sqrt(1 + slope_u * slope_u), np.sqrt(1 + slope_v * slope_v)
        first = self._family(0, u, stretch_u, frame.numbers[0])
        second = self._family(1, v, stretch_v, frame.numbers[1])
        of_first = first.edge < second.edge
        return RoadMap(
            distance=np.where(of_first, first.distance, second.distance),
            edge=np.minimum(first.edge, second.edge),
            other_edge=np.maximum(first.edge, second.edge),
            kind=np.where(of_first, first.kind, second.kind),
            along=np.where(of_first, v, u),
            east=np.where(of_first, -slope_u / stretch_u, 1 / stretch_v),
            north=np.where(of_first, 1 / stretch_u, -slope_v / stretch_v),
            block=(first.block, second.block),
        )

    def land_use(self, roads: RoadMap) -> Codes:
        """The LandUse of each point's block, [B, N]."""
        (value,) = self.draw(Feature.LAND_USE, roads.block, 1)
        return np.searchsorted(self._land_use_bounds, value, side="right").astype(np.uint8)

    def _family(self, family: int, across: Floats, stretch: Floats, number: Ints) -> _Family:
        spacing = self.style.roads.spacing
        nearest = np.rint(across * np.float32(1 / spacing))
        road = nearest.astype(np.int32) + number
        value, shift = self.draw(Feature.ROADS, (road, np.full(1, family, np.int32)), 2)
        kind = np.minimum(np.searchsorted(self._road_bounds, value, side="right"), Road.AVENUE).astype(np.uint8)
        centre = (shift - 0.5) * np.float32(spacing / 2)
        distance = np.where(value < self._road_bounds[-1], (across - nearest * spacing - centre) / stretch, _ABSENT)
        block = np.floor((across - centre) * np.float32(1 / spacing)).astype(np.int32) + number
        return _Family(distance, np.abs(distance) - _HALF_WIDTHS[kind], kind, block)

    def _bend(self, at: Floats, phases: Floats) -> tuple[Floats, Floats]:
        """The sum of waves at each point, and its slope."""
        bend, slope = np.zeros_like(at), np.zeros_like(at)
        for amplitude, wavelength, phase in zip(self.style.roads.bends, _WAVELENGTHS, phases, strict=True):
            angle = at * np.float32(_TURN / wavelength) + phase
            bend += np.float32(amplitude) * np.sin(angle)
            slope += np.float32(amplitude * _TURN / wavelength) * np.cos(angle)
        return bend, slope
