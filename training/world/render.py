"""Render pairs of the generated world: an aerial tile and a panorama of every position, with realistic differences."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images
from geodtr.training.world.arrays import Codes, Generators, Positions
from geodtr.training.world.colours import GAP, draw_look, photograph
from geodtr.training.world.hashing import Feature
from geodtr.training.world.regions import Region
from geodtr.training.world.scene import another_moment, build_scene
from geodtr.training.world.terrain import World
from geodtr.training.world.views.aerial import EXTENT, aerial_view
from geodtr.training.world.views.ground import draw_sky, ground_view


@dataclass(frozen=True, slots=True)
class Differences:
    """Differences between the views of a pair, in addition to season, light, noise and cars.

    Without `gap`, raw pixels alone match many pairs, and the task is too easy.
    """

    gap: float = GAP
    position: float = 0.7
    """Standard deviation of the tile's centre from the panorama's position, in metres east and north each; at most 10,
    so that the tile stays within the scene."""
    yaw: float = 1.0
    """Standard deviation of the panorama's heading from north, in degrees."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """B pairs in memory, with the surface that every pixel shows; S = 2 * height."""

    aerial: Images
    """uint8 [B, S, S, 3], north up, 60 m wide."""
    ground: Images
    """uint8 [B, height, width, 3]; column 0 looks south, then west, north, east."""
    heading: NDArray[np.float64]
    """Direction of column width / 2 in degrees clockwise from north, 0 to 360, [B]."""
    aerial_surface: Codes
    """Values of scene.Surface, [B, S, S]."""
    ground_surface: Codes
    """Values of scene.Surface, [B, height, width]."""


def render(
    world: World,
    positions: Positions,
    generators: Generators,
    *,
    height: int = 48,
    width: int = 192,
    differences: Differences | None = None,
) -> Rendering:
    """Render both views of each of `positions`, [B, 2] world metres; pair i uses generator i of `generators`."""
    differences = differences or Differences()
    side = 2 * height
    yaw = np.array([random.normal(0, math.radians(differences.yaw)) for random in generators])
    centre = np.array([random.normal(0, differences.position, 2) for random in generators], np.float32)

    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_ABOVE)
    look = draw_look(world.style, generators, differences.gap)
    above = aerial_view(scene, look, centre=centre, side=side)
    aerial = photograph(above.colour, look, generators)

    scene = another_moment(scene, Feature.CARS_SEEN_FROM_THE_ROAD)
    look, sky = draw_look(world.style, generators, differences.gap), draw_sky(world.style, generators)
    around = ground_view(scene, look, sky, yaw=yaw, height=height, width=width)
    ground = photograph(around.colour, look, generators)
    return Rendering(
        aerial=aerial.reshape(-1, side, side, 3),
        ground=ground.reshape(-1, height, width, 3),
        heading=np.mod(np.degrees(yaw), 360.0),
        aerial_surface=above.surface.reshape(-1, side, side),
        ground_surface=around.surface.reshape(-1, height, width),
    )


def render_tiles(
    world: World, positions: Positions, side: int, look: Generators, noise: Generators, gap: float = GAP
) -> Images:
    """The map about `positions`, [B, 2] world metres: uint8 [B, side, side, 3], 60 m wide and north up, with the draws
    of their looks and of their noise.
    """
    drawn = draw_look(world.style, look, gap)
    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_ABOVE)
    view = aerial_view(scene, drawn, centre=np.zeros((len(positions), 2), np.float32), side=side)
    return photograph(view.colour, drawn, noise).reshape(-1, side, side, 3)


def list_tiles(path: Path, region: Region, centres: Positions, side: int) -> None:
    """Write a tiles.csv of tiles of `side` pixels, 000000.png and so on, with the places of their centres."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "lat", "lon", "heading", "metres_per_pixel"))
        for row, (lat, lon) in enumerate(region.coordinates(centres).tolist()):
            writer.writerow((f"{row:06d}.png", f"{lat:.8f}", f"{lon:.8f}", 0, EXTENT / side))
