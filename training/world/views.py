"""What both views share: their result, and the light on the points that show one kind of thing.

Knows places, points and looks; knows nothing of how a view finds what a pixel shows.
"""

from dataclasses import dataclass

import numpy as np

from geodtr.training.world.arrays import Codes, Floats, Indices, Ints
from geodtr.training.world.colours import Look
from geodtr.training.world.objects import Shown
from geodtr.training.world.scene import Surface
from geodtr.training.world.style import Style


@dataclass(frozen=True, slots=True)
class View:
    """One view of each of B places, N pixels each, row by row from the top."""

    colour: Floats
    """RGB before the camera, [B, N, 3]."""
    surface: Codes
    """Values of Surface, [B, N]."""


@dataclass(frozen=True, slots=True)
class Points:
    """What the pixels show, in metres east and north of the place and above the ground, [B, N] each."""

    x: Floats
    y: Floats
    z: Floats


@dataclass(frozen=True, slots=True)
class Seen:
    """The M pixels that show one kind of thing; every array [M]."""

    style: Style
    pixel: Indices
    """Into the view's pixels, flattened."""
    thing: Ints
    """Into the things' arrays, flattened."""
    x: Floats
    y: Floats
    z: Floats
    season: Floats
    sun_east: Floats
    sun_north: Floats


def seen(kind: Surface, shown: Shown, points: Points, look: Look) -> Seen:
    """The pixels that show a thing of this kind, out of all [B * N]."""
    pixel = np.flatnonzero(shown.kind == kind)
    place = pixel // points.x.shape[1]
    return Seen(
        style=look.style,
        pixel=pixel,
        thing=shown.thing.take(pixel),
        x=points.x.take(pixel),
        y=points.y.take(pixel),
        z=points.z.take(pixel),
        season=look.season.take(place),
        sun_east=look.sun[:, 0].take(place),
        sun_north=look.sun[:, 1].take(place),
    )
