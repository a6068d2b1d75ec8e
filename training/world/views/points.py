"""Types shared by both views: their result, and the pixels that show one kind of object."""

from dataclasses import dataclass

import numpy as np

from geodtr.training.world.arrays import Codes, Floats, Indices, Ints
from geodtr.training.world.colours import Look
from geodtr.training.world.objects import Shown
from geodtr.training.world.scene import Surface
from geodtr.training.world.style import Style


@dataclass(frozen=True, slots=True)
class View:
    """One view of each of B locations, N pixels each, row by row from the top."""

    colour: Floats
    """RGB before the camera, [B, N, 3]."""
    surface: Codes
    """Values of Surface, [B, N]."""


@dataclass(frozen=True, slots=True)
class Points:
    """Points that the pixels show, in metres east and north of the location and above the ground, [B, N] each."""

    x: Floats
    y: Floats
    z: Floats


@dataclass(frozen=True, slots=True)
class Seen:
    """The M pixels that show one kind of object; every array [M]."""

    style: Style
    pixel: Indices
    """Index into the view's flattened pixels."""
    thing: Ints
    """Index into the objects' flattened arrays."""
    x: Floats
    y: Floats
    z: Floats
    season: Floats
    sun_east: Floats
    sun_north: Floats


def seen(kind: Surface, shown: Shown, points: Points, look: Look) -> Seen:
    """The pixels, of all [B * N], that show an object of this kind."""
    pixel = np.flatnonzero(shown.kind == kind)
    row = pixel // points.x.shape[1]
    return Seen(
        style=look.style,
        pixel=pixel,
        thing=shown.thing.take(pixel),
        x=points.x.take(pixel),
        y=points.y.take(pixel),
        z=points.z.take(pixel),
        season=look.season.take(row),
        sun_east=look.sun[:, 0].take(row),
        sun_north=look.sun[:, 1].take(row),
    )
