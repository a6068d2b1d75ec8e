"""The objects around a location: buildings, trees and cars, each where the map leaves room for it."""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from geodtr.training.world.arrays import Floats, Positions
from geodtr.training.world.hashing import Feature
from geodtr.training.world.objects import Boxes, Lattice, Mottle, Things, Trees
from geodtr.training.world.style import Buildings
from geodtr.training.world.terrain import Frame, World

SIGHT = 90.0
"""Viewing distance in metres; beyond it, the panorama shows bare ground in haze."""

_REACH = SIGHT + 4.0  # a ray's last sample is up to one step beyond the viewing distance


class Surface(IntEnum):
    """The surface that a pixel shows."""

    OPEN = 0
    ROAD = 1
    WATER = 2
    SKY = 3
    HALL = 4
    HOUSE = 5
    TREE = 6
    CAR = 7


_TREE_CELL = 5.0
_CAR_CELL = 6.0
_MOTTLE_CELL = 9.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything around B locations at one moment."""

    world: World
    frame: Frame
    mottle: Mottle
    halls: Boxes
    houses: Boxes
    trees: Trees
    cars: Boxes

    @property
    def things(self) -> dict[int, Things]:
        """All objects on the ground by their Surface."""
        return {Surface.HALL: self.halls, Surface.HOUSE: self.houses, Surface.CAR: self.cars, Surface.TREE: self.trees}


def build_scene(world: World, positions: Positions, cars: Feature, reach: float = _REACH) -> Scene:
    """Everything within `reach` metres of `positions`, [B, 2] world metres, with the cars of one moment."""
    frame = world.frame(positions)
    lattice = Lattice.around(positions, reach + _MOTTLE_CELL, _MOTTLE_CELL)
    (mottle,) = world.draw(Feature.MOTTLE, lattice.cells(), 1)
    halls = _build(world, frame, Feature.HALLS, world.style.halls, reach, apart_from=None)
    houses = _build(world, frame, Feature.HOUSES, world.style.houses, reach, apart_from=halls)
    trees = _plant(world, frame, reach, halls, houses)
    return Scene(world, frame, Mottle(lattice, mottle), halls, houses, trees, _park(world, frame, cars, reach))


def another_moment(scene: Scene, cars: Feature) -> Scene:
    """The same locations with other cars, within sight."""
    return replace(scene, cars=_park(scene.world, scene.frame, cars, _REACH))


def _build(
    world: World, frame: Frame, feature: Feature, buildings: Buildings, reach: float, apart_from: Boxes | None
) -> Boxes:
    """Buildings parallel to their nearest road, where land use, roads and `apart_from` leave room."""
    lattice = Lattice.around(frame.origins, reach, buildings.cell)
    present, east, north, first, second, tall, tone = world.draw(feature, lattice.cells(), 7)
    x, y = _shifted(lattice, east, north, 0.1 * buildings.cell)
    shortest, longest = buildings.side
    length, width = shortest + (longest - shortest) * first, shortest + (longest - shortest) * second
    # A building must stay within its cell at any rotation, because a point looks only into its own cell.
    fitting = np.minimum(1, 0.9 * buildings.cell / np.hypot(length, width))
    length, width = length * fitting, width * fitting
    roads = world.roads(frame, x, y)
    here = present < np.array(buildings.odds, np.float32).take(world.land_use(roads))
    here &= roads.edge > 0.5 * np.maximum(length, width) + buildings.clearance
    if apart_from is not None:
        here &= ~apart_from.covers(x, y, margin=6.0)
    lowest, highest = buildings.height
    # Squared, because most buildings are low.
    height = np.where(here, lowest + (highest - lowest) * tall * tall, np.float32(0.0))
    return Boxes(lattice, x, y, roads.east, roads.north, length / 2, width / 2, height, tone)


def _plant(world: World, frame: Frame, reach: float, halls: Boxes, houses: Boxes) -> Trees:
    """Trees by land use, and rows of trees along the roads of some blocks, clear of roads and buildings."""
    plants = world.style.plants
    lattice = Lattice.around(frame.origins, reach, _TREE_CELL)
    present, east, north, wide, tall, tone = world.draw(Feature.TREES, lattice.cells(), 6)
    radius = 1.0 + 1.4 * wide
    x, y = _shifted(lattice, east, north, _TREE_CELL - 2 * radius)
    roads = world.roads(frame, x, y)
    rows, needles = world.draw(Feature.PLANTING, roads.block, 2)
    odds = np.array(plants.odds, np.float32).take(world.land_use(roads))
    odds = np.where((roads.edge < 3.2) & (rows < plants.lined), np.float32(0.6), odds)
    here = (present < odds) & (roads.edge > 0.6 * radius + 0.3)
    here &= ~(halls.covers(x, y, margin=1.2) | houses.covers(x, y, margin=1.2))
    height = np.where(here, 2.5 * radius + 3.5 * tall, np.float32(0.0))
    return Trees(lattice, x, y, radius, height, needles < plants.conifers, tone)


def _park(world: World, frame: Frame, cars: Feature, reach: float) -> Boxes:
    """Cars on paved roads, along the road and off its centre line."""
    lattice = Lattice.around(frame.origins, reach, _CAR_CELL)
    present, tone = world.draw(cars, lattice.cells(), 2)
    x, y = lattice.centres()
    roads = world.roads(frame, x, y)
    here = (present < world.style.parked) & roads.paved & (roads.edge < -1.0) & (np.abs(roads.distance) > 0.9)
    here &= np.hypot(x, y) > 5  # keep the camera's location free
    height = np.where(here, np.float32(1.5), np.float32(0.0))
    half_length, half_width = np.full(x.shape, 2.2, np.float32), np.full(x.shape, 0.95, np.float32)
    return Boxes(lattice, x, y, roads.east, roads.north, half_length, half_width, height, tone)


def _shifted(lattice: Lattice, east: Floats, north: Floats, extent: Floats | float) -> tuple[Floats, Floats]:
    """One point per cell, uniform over its middle `extent` metres; `east` and `north` are uniform draws."""
    x, y = lattice.centres()
    return x + (east - 0.5) * extent, y + (north - 0.5) * extent
