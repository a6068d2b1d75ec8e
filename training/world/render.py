"""Pairs of views of the generated world: an aerial tile and a panorama of every position, and what sets them apart.

Knows both views and how they disagree; knows nothing of regions or files.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images
from geodtr.training.world.aerial import aerial_view
from geodtr.training.world.arrays import Chance, Codes, Positions
from geodtr.training.world.colours import draw_look, photograph
from geodtr.training.world.ground import draw_sky, ground_view
from geodtr.training.world.hashing import Feature
from geodtr.training.world.scene import another_moment, build_scene
from geodtr.training.world.terrain import World


@dataclass(frozen=True, slots=True)
class Differences:
    """How far the views of a pair disagree, beyond season, light, noise and cars, which always do.

    Without `gap`, raw pixels already tell much of which tile belongs to which panorama: then it is no task to learn.
    """

    gap: float = 0.12
    """Log-normal sigma by which each ground material's colour strays in each view."""
    position: float = 0.7
    """Standard deviation of the tile's centre from the panorama's position, metres east and north each; at most 10, for
    the tile must stay within the scene."""
    yaw: float = 1.0
    """Standard deviation of the panorama's heading from north, degrees."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """B pairs in memory, with what every pixel shows; S = 2 * height."""

    aerial: Images
    """uint8 [B, S, S, 3], north up, 60 m wide."""
    ground: Images
    """uint8 [B, height, width, 3]; column 0 looks south, then west, north, east."""
    heading: NDArray[np.float64]
    """Degrees clockwise from north, 0 to 360, in which the column width / 2 looks, [B]."""
    aerial_surface: Codes
    """Values of scene.Surface, [B, S, S]; likewise [B, height, width] of the ground."""
    ground_surface: Codes


def render(
    world: World,
    positions: Positions,
    chance: Chance,
    *,
    height: int = 48,
    width: int = 192,
    differences: Differences | None = None,
) -> Rendering:
    """Both views of each of `positions`, [B, 2] world metres; pair i is drawn by generator i of `chance`."""
    differences = differences or Differences()
    side = 2 * height
    yaw = np.array([random.normal(0, math.radians(differences.yaw)) for random in chance])
    centre = np.array([random.normal(0, differences.position, 2) for random in chance], np.float32)

    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_ABOVE)
    look = draw_look(world.style, chance, differences.gap)
    above = aerial_view(scene, look, centre=centre, side=side)
    aerial = photograph(above.colour, look, chance)

    scene = another_moment(scene, Feature.CARS_SEEN_FROM_THE_ROAD)
    look, sky = draw_look(world.style, chance, differences.gap), draw_sky(world.style, chance)
    around = ground_view(scene, look, sky, yaw=yaw, height=height, width=width)
    ground = photograph(around.colour, look, chance)
    return Rendering(
        aerial=aerial.reshape(-1, side, side, 3),
        ground=ground.reshape(-1, height, width, 3),
        heading=np.mod(np.degrees(yaw), 360.0),
        aerial_surface=above.surface.reshape(-1, side, side),
        ground_surface=around.surface.reshape(-1, height, width),
    )
