"""Pairs of a nadir frame and a tile: the frame as a search supposes it, north up and cropped to a tile's ground."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.images.nadir import north_up
from geodtr.runtime.spec import Images
from geodtr.training.world.arrays import Generators, Positions
from geodtr.training.world.colours import GAP, draw_look, photograph
from geodtr.training.world.hashing import Feature
from geodtr.training.world.scene import build_scene
from geodtr.training.world.terrain import World
from geodtr.training.world.views.aerial import EXTENT, aerial_view
from geodtr.training.world.views.nadir import draw_camera, nadir_frame

_HEIGHT, _WIDTH = 150, 200
"""Pixels of a frame before it is cropped."""
_ALTITUDE = (60.0, 120.0)
"""Metres above the ground."""
_TILT, _BLUR = 10.0, 1.5
"""Largest tilt in degrees, and longest motion during the exposure in pixels."""
_HEADING_ERROR, _WIDTH_ERROR, _POSITION_ERROR = 20.0, 0.06, 12.0
"""How far what is supposed of a frame may be from the truth, as in a search of 16 rotations and few sizes, of tiles
that are 20 m apart: degrees either way, the log-normal sigma of its width on the ground, and metres east and north.
"""


@dataclass(frozen=True, slots=True)
class NadirPairs:
    """B pairs in memory: uint8 [B, side, side, 3], 60 m wide, and the headings of the frames' upper edges, [B]."""

    ground: Images
    aerial: Images
    heading: NDArray[np.float64]


def render_nadir_pairs(
    world: World,
    positions: Positions,
    generators: Generators,
    *,
    side: int,
) -> NadirPairs:
    """Render a frame whose middle shows each of `positions`, [B, 2] world metres, and the map's tile near it; pair i
    uses generator i of `generators`.
    """
    look = draw_look(world.style, generators, GAP)
    centre = np.array([random.uniform(-_POSITION_ERROR, _POSITION_ERROR, 2) for random in generators], np.float32)
    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_ABOVE)
    above = aerial_view(scene, look, centre=centre, side=side)
    aerial = photograph(above.colour, look, generators).reshape(-1, side, side, 3)
    frames, headings = zip(
        *(_frame(world, position, random, side) for position, random in zip(positions, generators, strict=True)),
        strict=True,
    )
    return NadirPairs(np.stack(frames), aerial, np.array(headings) % 360)


def _frame(world: World, position: NDArray[np.float64], random: np.random.Generator, side: int) -> tuple[Images, float]:
    camera = draw_camera(random, _ALTITUDE, _TILT, height=_HEIGHT, width=_WIDTH)
    middle = camera.ground(np.array([_WIDTH / 2]), np.array([_HEIGHT / 2]))[0]
    blur = random.uniform(0, _BLUR)
    pixels = nadir_frame(world, position - middle, camera, random, gap=GAP, blur=blur)
    error = random.uniform(-_HEADING_ERROR, _HEADING_ERROR)
    scale = camera.altitude / camera.focal * math.exp(random.normal(0, _WIDTH_ERROR))
    (crop,) = north_up(Image.fromarray(pixels), scale, [camera.heading + error], side, EXTENT / side)
    return crop, -error
