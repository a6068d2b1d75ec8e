"""Colours of ground, trees, roofs, walls and cars, and their variation by season, light and camera.

Colours are float32 RGB, 0 to 1, before the camera.
"""

import math
from dataclasses import dataclass

import numpy as np

from geodtr.runtime.spec import Images
from geodtr.training.world.arrays import Bools, Floats, Generators
from geodtr.training.world.cover import Cover, Material
from geodtr.training.world.style import Colour, Colours, Style

GAP = 0.12
"""Log-normal sigma of each ground material's colour in each view."""
_NOISE = 0.02  # standard deviation
_PAINTS = ((0.80, 0.80, 0.82), (0.15, 0.15, 0.17), (0.60, 0.12, 0.10), (0.15, 0.25, 0.50))


@dataclass(frozen=True, slots=True)
class Look:
    """Season, light and camera of one view of B locations, all of one style."""

    style: Style
    season: Floats
    """0 (green) to 1 (autumn), [B]."""
    sun: Floats
    """Horizontal direction to the sun, unit vectors east and north, [B, 2]."""
    palette: Floats
    """Colours of the ground materials, [B, materials, 3]."""
    gain: Floats
    """Exposure and tint, [B, 3]."""
    contrast: Floats
    """[B]."""


def draw_look(style: Style, generators: Generators, gap: float) -> Look:
    """Draw a look for each pair. `gap` is the log-normal sigma of each material's colour in this view."""
    season = np.array([random.uniform(*style.season) for random in generators], np.float32)
    sun = np.array([random.uniform(0, 2 * math.pi) for random in generators], np.float32)
    colours = style.colours
    palette = np.tile(_rgb(*colours.ground), (len(generators), 1, 1))
    palette[:, Material.GRASS] += season[:, None] * (_rgb(colours.autumn_grass) - palette[:, Material.GRASS])
    # The brightness of a material varies more than its hue.
    deviation = [
        random.standard_normal((len(Material), 1)) + 0.4 * random.standard_normal((len(Material), 3))
        for random in generators
    ]
    palette *= np.exp(gap * np.array(deviation, np.float32))
    gain = np.array([random.uniform(0.75, 1.3) * random.uniform(0.87, 1.13, 3) for random in generators], np.float32)
    contrast = np.array([random.uniform(0.65, 1.2) for random in generators], np.float32)
    return Look(style, season, np.stack([np.cos(sun), np.sin(sun)], axis=1), palette, gain, contrast)


def ground_colours(look: Look, cover: Cover) -> Floats:
    """The colour of the ground at each point, [B, N, 3]."""
    locations, materials, _ = look.palette.shape
    entry = cover.material + (np.arange(locations, dtype=np.int32) * materials)[:, None]
    colour: Floats = look.palette.reshape(-1, 3).take(entry, axis=0)
    colour *= (cover.brightness * (1 - cover.dryness))[..., None]
    colour += cover.dryness[..., None] * _rgb(look.style.colours.withered_grass)
    return colour


def tree_colours(colours: Colours, season: Floats, conifer: Bools, tone: Floats) -> Floats:
    """The colour of crowns, [M, 3]; the arrays are [M]."""
    green, autumn = _rgb(colours.leaves), _rgb(colours.autumn_leaves)
    leaves = green + season[:, None] * (autumn - green)
    shade: Floats = 0.75 + 0.5 * tone
    colour: Floats = np.where(conifer[:, None], _rgb(colours.needles), leaves) * shade[:, None]
    return colour


def hall_roof_colours(colours: Colours, tone: Floats) -> Floats:
    """The colours of halls' flat roofs, [M, 3]; `tone` is a uniform draw in [0, 1), [M], here and below."""
    return _rgb(colours.hall_roof) * (0.7 + 0.6 * tone)[:, None]


def house_roof_colours(colours: Colours, tone: Floats) -> Floats:
    """The colours of houses' pitched roofs, [M, 3]."""
    return _choice(colours.roofs, tone)


def wall_colours(colours: Colours, tone: Floats) -> Floats:
    """The colours of houses' walls, [M, 3]."""
    # The fraction that is left after selecting the roof.
    return _choice(colours.walls, np.mod(tone * len(colours.roofs), 1))


def car_colours(tone: Floats) -> Floats:
    """The colours of cars, [M, 3]."""
    return _choice(_PAINTS, tone)


def photograph(colour: Floats, look: Look, generators: Generators) -> Images:
    """Apply the camera to colours [B, N, 3]: exposure, tint, contrast and noise. Returns uint8 of the same shape."""
    middle = np.float32(0.45)
    contrast = look.contrast[:, None, None]
    shot = colour * (look.gain[:, None, :] * contrast)
    shot += middle - middle * contrast
    for row, random in enumerate(generators):
        shot[row] += np.float32(_NOISE) * random.standard_normal(shot[row].shape, np.float32)
    np.clip(shot, 0, 1, out=shot)
    return (shot * 255 + 0.5).astype(np.uint8)


def _choice(colours: tuple[Colour, ...], tone: Floats) -> Floats:
    choice: Floats = _rgb(*colours).take((tone * len(colours)).astype(np.int32), axis=0)
    return choice


def _rgb(*colours: Colour) -> Floats:
    return np.array(colours, np.float32)
