"""Colours of ground, trees, roofs, walls and cars; the season, light and camera that change them from view to view.

Colours are float32 RGB, 0 to 1, before the camera. Knows no geometry.
"""

import math
from dataclasses import dataclass

import numpy as np

from geodtr.runtime.spec import Images
from geodtr.training.world.arrays import Bools, Chance, Floats
from geodtr.training.world.cover import Cover, Material

_NOISE = 0.02  # standard deviation


def _rgb(*colours: tuple[float, float, float]) -> Floats:
    return np.array(colours, np.float32)


# In the order of Material; the grass is that of spring.
_GROUND = _rgb(
    (0.30, 0.46, 0.20),
    (0.42, 0.55, 0.18),
    (0.49, 0.55, 0.22),
    (0.55, 0.54, 0.26),
    (0.62, 0.54, 0.30),
    (0.30, 0.30, 0.18),
    (0.56, 0.55, 0.53),
    (0.16, 0.28, 0.36),
    (0.68, 0.66, 0.62),
    (0.34, 0.34, 0.36),
    (0.58, 0.47, 0.34),
    (0.85, 0.78, 0.45),
    (0.82, 0.82, 0.80),
)
_AUTUMN_GRASS = _rgb((0.55, 0.50, 0.30))
_WITHERED_GRASS = _rgb((0.58, 0.50, 0.34))
_LEAVES, _AUTUMN_LEAVES, _NEEDLES = _rgb((0.20, 0.36, 0.14), (0.50, 0.36, 0.14), (0.13, 0.27, 0.15))
_HALL_ROOF = _rgb((0.62, 0.62, 0.60))
_ROOFS = _rgb(
    (0.60, 0.28, 0.20),
    (0.45, 0.42, 0.40),
    (0.70, 0.68, 0.65),
    (0.36, 0.27, 0.22),
    (0.50, 0.36, 0.28),
    (0.30, 0.34, 0.42),
)
_WALLS = _rgb(
    (0.80, 0.76, 0.68),
    (0.66, 0.42, 0.33),
    (0.86, 0.85, 0.82),
    (0.58, 0.60, 0.62),
    (0.72, 0.62, 0.45),
    (0.50, 0.56, 0.50),
)
_PAINTS = _rgb((0.80, 0.80, 0.82), (0.15, 0.15, 0.17), (0.60, 0.12, 0.10), (0.15, 0.25, 0.50))


@dataclass(frozen=True, slots=True)
class Look:
    """Season, light and camera of one view of each of B places."""

    season: Floats
    """0 green to 1 autumn, [B]."""
    sun: Floats
    """The horizontal direction to the sun, unit vectors east and north, [B, 2]."""
    palette: Floats
    """The ground's colours, [B, materials, 3]."""
    gain: Floats
    """Exposure and tint, [B, 3]."""
    contrast: Floats
    """[B]."""


def draw_look(chance: Chance, gap: float) -> Look:
    """A look for each pair. `gap` is the log-normal sigma by which each material's colour strays in this view."""
    season = np.array([random.random() for random in chance], np.float32)
    sun = np.array([random.uniform(0, 2 * math.pi) for random in chance], np.float32)
    palette = np.tile(_GROUND, (len(chance), 1, 1))
    palette[:, Material.GRASS] += season[:, None] * (_AUTUMN_GRASS - palette[:, Material.GRASS])
    # A material grows lighter or darker as a whole more than it changes its hue.
    astray = [
        random.standard_normal((len(Material), 1)) + 0.4 * random.standard_normal((len(Material), 3))
        for random in chance
    ]
    palette *= np.exp(gap * np.array(astray, np.float32))
    gain = np.array([random.uniform(0.75, 1.3) * random.uniform(0.87, 1.13, 3) for random in chance], np.float32)
    contrast = np.array([random.uniform(0.65, 1.2) for random in chance], np.float32)
    return Look(season, np.stack([np.cos(sun), np.sin(sun)], axis=1), palette, gain, contrast)


def ground_colours(look: Look, cover: Cover) -> Floats:
    """The colour of the ground at each point, [B, N, 3]."""
    places, materials, _ = look.palette.shape
    entry = cover.material + (np.arange(places, dtype=np.int32) * materials)[:, None]
    colour: Floats = look.palette.reshape(-1, 3).take(entry, axis=0)
    colour *= (cover.brightness * (1 - cover.dryness))[..., None]
    colour += cover.dryness[..., None] * _WITHERED_GRASS
    return colour


def tree_colours(season: Floats, conifer: Bools, tone: Floats) -> Floats:
    """The colour of crowns, [M, 3]; all arguments [M]."""
    leaves = _LEAVES + season[:, None] * (_AUTUMN_LEAVES - _LEAVES)
    shade: Floats = 0.75 + 0.5 * tone
    colour: Floats = np.where(conifer[:, None], _NEEDLES, leaves) * shade[:, None]
    return colour


def hall_roof_colours(tone: Floats) -> Floats:
    """The colours of flat roofs, [M, 3], by uniform draws in [0, 1), [M]; likewise below."""
    return _HALL_ROOF * (0.7 + 0.6 * tone)[:, None]


def house_roof_colours(tone: Floats) -> Floats:
    return _choice(_ROOFS, tone)


def wall_colours(tone: Floats) -> Floats:
    # What is left of the draw once it has chosen the roof.
    return _choice(_WALLS, np.mod(tone * len(_ROOFS), 1))


def car_colours(tone: Floats) -> Floats:
    return _choice(_PAINTS, tone)


def photograph(colour: Floats, look: Look, chance: Chance) -> Images:
    """What the camera makes of colours [B, N, 3]: exposure, tint, contrast and noise; uint8 of the same shape."""
    middle = np.float32(0.45)
    contrast = look.contrast[:, None, None]
    shot = colour * (look.gain[:, None, :] * contrast)
    shot += middle - middle * contrast
    for place, random in enumerate(chance):
        shot[place] += np.float32(_NOISE) * random.standard_normal(shot[place].shape, np.float32)
    np.clip(shot, 0, 1, out=shot)
    return (shot * 255 + 0.5).astype(np.uint8)


def _choice(colours: Floats, tone: Floats) -> Floats:
    chosen: Floats = colours.take((tone * len(colours)).astype(np.int32), axis=0)
    return chosen
