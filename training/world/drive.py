"""A drive along the roads of the generated world: its route, the tiles around it, and the panoramas that it sees."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Images
from geodtr.training.world.arrays import Positions
from geodtr.training.world.colours import GAP, draw_look, photograph
from geodtr.training.world.hashing import Feature
from geodtr.training.world.regions import Region, choose_positions
from geodtr.training.world.render import list_tiles, render_tiles
from geodtr.training.world.scene import build_scene
from geodtr.training.world.terrain import World
from geodtr.training.world.views.ground import draw_sky, ground_view

WAY = 5.0
"""Metres between two points of a route."""
_STARTS = 1000
"""Positions that routes begin at."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Route:
    """World metres [N, 2] and headings in degrees clockwise from north, float64 [N], a point every WAY metres."""

    positions: Positions
    headings: NDArray[np.float64]


def follow_roads(world: World, region: Region, points: int, seed: int) -> Route:
    """A route along the roads from a random position on one, with turns at some crossings."""
    random = np.random.default_rng(seed)
    position = choose_positions(world, region, _STARTS)[seed % _STARTS]
    course = random.uniform(-1, 1, 2)
    positions, headings = np.empty((points, 2)), np.empty(points)
    turning = True
    for point in range(points):
        side = np.linspace(-1.5, 1.5, 13, dtype=np.float32)[None]
        off = (side * -course[1] / np.hypot(*course), side * course[0] / np.hypot(*course))
        roads = world.roads(world.frame(position[None]), *(part.astype(np.float32) for part in off))
        middle = int(np.argmin(np.abs(roads.distance[0])))
        position = position + np.array([off[0][0, middle], off[1][0, middle]])
        ahead = np.array([roads.east[0, middle], roads.north[0, middle]], np.float64)
        ahead *= 1.0 if ahead @ course >= 0 else -1.0
        along = ahead @ course / np.hypot(*course)
        if along > 0.7:
            course, turning = ahead, bool(random.random() < 0.3)
        elif turning:
            course, turning = ahead, False
        positions[point], headings[point] = position, math.degrees(math.atan2(course[0], course[1])) % 360
        position = position + WAY * course / np.hypot(*course)
    return Route(positions, headings)


def grid_around(positions: Positions, spacing: float, margin: float) -> Positions:
    """Tile centres on a square grid within `margin` metres of a route, world metres [N, 2].

    A model that was trained with tiles centred on the camera needs a dense grid.
    """
    low, high = positions.min(axis=0) - margin, positions.max(axis=0) + margin
    grid = np.stack(np.meshgrid(*(np.arange(a, b, spacing) for a, b in zip(low, high, strict=True))), axis=-1)
    tiles = grid.reshape(-1, 2)
    near = [np.hypot(*(positions - tile).T).min() <= margin for tile in tiles]
    return np.asarray(tiles[near], np.float64)


def write_tiles(
    folder: Path,
    world: World,
    region: Region,
    centres: Positions,
    side: int,
    seed: int,
    *,
    track: Track = untracked,
) -> None:
    """Render a tile of `side` pixels around each centre, and tiles.csv: `folder` is then a source of a gallery. Each
    tile has a look of its own, as in training.
    """
    list_tiles(folder / "tiles.csv", region, centres, side)
    for start in track(range(0, len(centres), _BATCH), "Rendering tiles", math.ceil(len(centres) / _BATCH)):
        positions = centres[start : start + _BATCH]
        generators = [np.random.default_rng((seed + start, 0, row)) for row in range(len(positions))]
        for row, tile in enumerate(render_tiles(world, positions, side, generators, generators), start):
            Image.fromarray(tile).save(folder / f"{row:06d}.png")


def panoramas(
    world: World, positions: Positions, headings: NDArray[np.float64], height: int, width: int, seed: int
) -> Images:
    """Panoramas whose centre columns look to `headings`, uint8 RGB [B, height, width, 3]."""
    generators = [np.random.default_rng((seed, 1, row)) for row in range(len(positions))]
    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_THE_ROAD)
    look, sky = draw_look(world.style, generators, GAP), draw_sky(world.style, generators)
    view = ground_view(scene, look, sky, yaw=np.radians(headings), height=height, width=width)
    return photograph(view.colour, look, generators).reshape(-1, height, width, 3)
