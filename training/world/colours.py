"""Colours of ground, trees, roofs, walls and cars; the season, light and camera that change them from view to view.

Colours are float32 RGB, 0 to 1, before the camera. Knows no geometry.
"""

import math
from dataclasses import dataclass

import numpy as np

from geodtr.runtime.spec import Images
from geodtr.training.world.arrays import Bools, Chance, Floats
from geodtr.training.world.cover import Cover, Material
from geodtr.training.world.style import Colour, Colours, Style

_NOISE = 0.02  # standard deviation
_PAINTS = ((0.80, 0.80, 0.82), (0.15, 0.15, 0.17), (0.60, 0.12, 0.10), (0.15, 0.25, 0.50))


@dataclass(frozen=True, slots=True)
class Look:
    """Season, light and camera of one view of each of B places, all of one style."""

    style: Style
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


def draw_look(style: Style, chance: Chance, gap: float) -> Look:
    """A look for each pair. `gap` is the log-normal sigma by which each material's colour strays in this view."""
    season = np.array([random.uniform(*style.season) for random in chance], np.float32)
    sun = np.array([random.uniform(0, 2 * math.pi) for random in chance], np.float32)
    colours = style.colours
    palette = np.tile(_rgb(*colours.ground), (len(chance), 1, 1))
    palette[:, Material.GRASS] += season[:, None] * (_rgb(colours.autumn_grass) - palette[:, Material.GRASS])
    # A material grows lighter or darker as a whole more than it changes its hue.
    astray = [
        random.standard_normal((len(Material), 1)) + 0.4 * random.standard_normal((len(Material), 3))
        for random in chance
    ]
    palette *= np.exp(gap * np.array(astray, np.float32))
    gain = np.array([random.uniform(0.75, 1.3) * random.uniform(0.87, 1.13, 3) for random in chance], np.float32)
    contrast = np.array([random.uniform(0.65, 1.2) for random in chance], np.float32)
    return Look(style, season, np.stack([np.cos(sun), np.sin(sun)], axis=1), palette, gain, contrast)


def ground_colours(look: Look, cover: Cover) -> Floats:
    """The colour of the ground at each point, [B, N, 3]."""
    places, materials, _ = look.palette.shape
    entry = cover.material + (np.arange(places, dtype=np.int32) * materials)[:, None]
    colour: Floats = look.palette.reshape(-1, 3).take(entry, axis=0)
    colour *= (cover.brightness * (1 - cover.dryness))[..., None]
    colour += cover.dryness[..., None] * _rgb(look.style.colours.withered_grass)
    return colour


def tree_colours(colours: Colours, season: Floats, conifer: Bools, tone: Floats) -> Floats:
    """The colour of crowns, [M, 3]; all other arguments [M]."""
    green, autumn = _rgb(colours.leaves), _rgb(colours.autumn_leaves)
    leaves = green + season[:, None] * (autumn - green)
    shade: Floats = 0.75 + 0.5 * tone
    colour: Floats = np.where(conifer[:, None], _rgb(colours.needles), leaves) * shade[:, None]
    return colour


def hall_roof_colours(colours: Colours, tone: Floats) -> Floats:
    """The colours of halls' flat roofs, [M, 3], by uniform draws in [0, 1), [M]; likewise below."""
    return _rgb(colours.hall_roof) * (0.7 + 0.6 * tone)[:, None]


def house_roof_colours(colours: Colours, tone: Floats) -> Floats:
    return _choice(colours.roofs, tone)


def wall_colours(colours: Colours, tone: Floats) -> Floats:
    # What is left of the draw once it has chosen the roof.
    return _choice(colours.walls, np.mod(tone * len(colours.roofs), 1))


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


def _choice(colours: tuple[Colour, ...], tone: Floats) -> Floats:
    chosen: Floats = _rgb(*colours).take((tone * len(colours)).astype(np.int32), axis=0)
    return chosen


def _rgb(*colours: Colour) -> Floats:
    return np.array(colours, np.float32)
