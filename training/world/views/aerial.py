"""The aerial view: an orthographic tile, north up, with shadows."""

import math

import numpy as np

from geodtr.training.world.arrays import Bools, Floats
from geodtr.training.world.colours import (
    Look,
    car_colours,
    ground_colours,
    hall_roof_colours,
    house_roof_colours,
    tree_colours,
)
from geodtr.training.world.cover import ground_cover
from geodtr.training.world.objects import Boxes, Shown, Trees, tops
from geodtr.training.world.scene import Scene, Surface
from geodtr.training.world.views.points import Points, Seen, View, seen

EXTENT = 60.0
"""Side of a tile in metres."""

_SUN_SLOPE = math.tan(math.radians(50))
_SHADOW_STEPS = (1.2, 2.8, 5.0, 8.0)  # metres towards the sun at which occluders are sampled
_SHADE = 0.55


def aerial_view(scene: Scene, look: Look, *, centre: Floats, side: int) -> View:
    """Tiles of `side` by `side` pixels around `centre`, [B, 2] metres east and north of the scene's locations."""
    steps = ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5) * np.float32(EXTENT)
    x = centre[:, :1] + np.tile(steps, side)
    y = centre[:, 1:] - np.repeat(steps, side)
    height, shown = tops(scene.things, x, y)
    return view_from_above(scene, look, Points(x, y, height.reshape(x.shape)), shown)


def view_from_above(scene: Scene, look: Look, points: Points, shown: Shown) -> View:
    """The colours of points that are seen from above, each the ground or the top of the object that is `shown`."""
    cover = ground_cover(scene, points.x, points.y)
    colour = ground_colours(look, cover)

    pixels = colour.reshape(-1, 3)
    roofs = seen(Surface.HALL, shown, points, look)
    pixels[roofs.pixel] = hall_roof_colours(look.style.colours, scene.halls.tone.take(roofs.thing))
    roofs = seen(Surface.HOUSE, shown, points, look)
    pixels[roofs.pixel] = _gables(scene.houses, roofs)
    parked = seen(Surface.CAR, shown, points, look)
    pixels[parked.pixel] = car_colours(scene.cars.tone.take(parked.thing))
    crowns = seen(Surface.TREE, shown, points, look)
    pixels[crowns.pixel] = _crowns(scene.trees, crowns)
    pixels[_shaded(scene, look, points)] *= _SHADE

    kind = shown.kind.reshape(points.x.shape)
    return View(colour, np.where(kind > 0, kind, cover.surface))


def _gables(houses: Boxes, roofs: Seen) -> Floats:
    """Colours of roofs whose two slopes meet above the house's longer axis, [M, 3]."""
    along, across = houses.local(roofs.x, roofs.y, roofs.thing)
    sun_along, sun_across = houses.turned(roofs.sun_east, roofs.sun_north, roofs.thing)
    lengthwise = houses.half_length.take(roofs.thing) > houses.half_width.take(roofs.thing)
    downhill, sun = np.where(lengthwise, across, along), np.where(lengthwise, sun_across, sun_along)
    light: Floats = 1 + np.float32(roofs.style.gable) * np.where(downhill > 0, sun, -sun)
    return house_roof_colours(roofs.style.colours, houses.tone.take(roofs.thing)) * light[:, None]


def _crowns(trees: Trees, crowns: Seen) -> Floats:
    """Colours of crowns, lighter on the sunny side, [M, 3]."""
    east, north = trees.local(crowns.x, crowns.y, crowns.thing)
    conifer, tone = trees.conifer.take(crowns.thing), trees.tone.take(crowns.thing)
    colour = tree_colours(crowns.style.colours, crowns.season, conifer, tone)
    light: Floats = 1 + np.float32(0.4) * (east * crowns.sun_east + north * crowns.sun_north)
    return colour * light[:, None]


def _shaded(scene: Scene, look: Look, points: Points) -> Bools:
    """Which points are in the shade of something between them and the sun, flat [B * N]."""
    shaded = np.zeros(points.x.size, np.bool_)
    for step in _SHADOW_STEPS:
        height, _ = tops(scene.things, points.x + step * look.sun[:, :1], points.y + step * look.sun[:, 1:])
        shaded |= height > points.z.ravel() + np.float32(step * _SUN_SLOPE)
    return shaded
