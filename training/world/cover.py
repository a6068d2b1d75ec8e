"""Ground cover at each point: grass, crops, asphalt, painted lines, water.

Defines the material, brightness and dryness of the cover; colours are in `colours`.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from geodtr.training.world.arrays import Codes, Floats, Indices
from geodtr.training.world.hashing import Feature
from geodtr.training.world.scene import Scene, Surface
from geodtr.training.world.terrain import LandUse, Road, RoadMap


class Material(IntEnum):
    """Material of the ground; from PAVEMENT on it is man-made and more uniform."""

    GRASS = 0
    YOUNG_CROP = 1
    GREEN_CROP = 2
    RIPENING_CROP = 3
    RIPE_CROP = 4
    FOREST_FLOOR = 5
    YARD = 6
    WATER = 7
    PAVEMENT = 8
    ASPHALT = 9
    DIRT = 10
    CENTRE_LINE = 11
    EDGE_LINE = 12


# In the order of LandUse: meadow, field, forest, homes, town, water.
_BY_LAND_USE = np.array(
    [Material.GRASS, Material.YOUNG_CROP, Material.FOREST_FLOOR, Material.GRASS, Material.YARD, Material.WATER],
    np.uint8,
)
_SURFACES = np.full(len(Material), Surface.OPEN, np.uint8)
_SURFACES[Material.WATER] = Surface.WATER
_SURFACES[[Material.ASPHALT, Material.DIRT, Material.CENTRE_LINE, Material.EDGE_LINE]] = Surface.ROAD


@dataclass(frozen=True, slots=True)
class Cover:
    """The ground's cover at each point; every array [B, N]."""

    material: Codes
    """Values of Material."""
    brightness: Floats
    """A factor around 1."""
    dryness: Floats
    """How withered grass is, 0 to 1; 0 for other materials."""

    @property
    def surface(self) -> Codes:
        """Values of Surface: ROAD, WATER or OPEN."""
        return _SURFACES.take(self.material)


def ground_cover(scene: Scene, x: Floats, y: Floats) -> Cover:
    """The ground's cover at points x, y: [B, N] metres east and north of the scene's locations."""
    roads = scene.world.roads(scene.frame, x, y)
    use = scene.world.land_use(roads)
    material = _material(roads, use)
    mottle = scene.mottle.at(x, y)
    brightness = np.where(material < Material.PAVEMENT, 0.8 + 0.4 * mottle, 0.92 + 0.16 * mottle)
    dryness = (material == Material.GRASS) * (np.float32(scene.world.style.plants.withering) * mottle * mottle)
    field = np.flatnonzero((use == LandUse.FIELD) & (roads.edge >= 0))
    crop, furrow = _ploughed(scene, roads, x, y, field)
    material.reshape(-1)[field] = crop
    brightness.reshape(-1)[field] += furrow
    return Cover(material, brightness, dryness)


def _material(roads: RoadMap, use: Codes) -> Codes:
    """The cover of roads and blocks; fields have no crops yet."""
    material = _BY_LAND_USE.take(use)
    material[(use == LandUse.WATER) & (roads.edge < 2.5)] = Material.GRASS  # a bank
    paved, on_road = roads.paved, roads.edge < 0
    material[(roads.edge < 1.6) & paved & ((use == LandUse.HOMES) | (use == LandUse.TOWN))] = Material.PAVEMENT
    material[on_road] = np.where(paved[on_road], np.uint8(Material.ASPHALT), np.uint8(Material.DIRT))
    lined = on_road & paved & (roads.other_edge > 0)  # no lines at crossings
    avenue = roads.kind == Road.AVENUE
    dash = np.mod(roads.along * np.float32(0.125), 1) < 0.5
    material[lined & (np.abs(roads.distance) < 0.22) & (avenue | dash)] = Material.CENTRE_LINE
    material[lined & avenue & (np.abs(roads.edge + 0.5) < 0.15)] = Material.EDGE_LINE
    return material


def _ploughed(scene: Scene, roads: RoadMap, x: Floats, y: Floats, field: Indices) -> tuple[Codes, Floats]:
    """The crop at each point in `field`, and the brightness offset of its furrows, three metres apart."""
    kind, heading = scene.world.draw(Feature.PLOUGHING, (roads.block[0].take(field), roads.block[1].take(field)), 2)
    crop = np.uint8(Material.YOUNG_CROP) + (kind * 4).astype(np.uint8)
    # Neighbouring locations share furrows, except where the remainder wraps; float32 cannot hold more.
    origin = np.mod(scene.frame.origins, 3000.0).astype(np.float32).take(field // x.shape[1], axis=0)
    east, north = origin[:, 0] + x.take(field), origin[:, 1] + y.take(field)
    angle = heading * np.float32(math.pi)
    across = east * np.cos(angle) + north * np.sin(angle)
    return crop, np.where(np.mod(across * np.float32(0.33), 1) < 0.5, np.float32(0.1), np.float32(-0.1))
