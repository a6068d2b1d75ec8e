"""The ground view: a full panorama, ray-cast from a camera above the location.

Column 0 looks south, then west, north, east, as in the polar transform of a north-up tile. Rows and columns have the
same angular pitch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.training.world.arrays import Floats, Generators
from geodtr.training.world.colours import (
    Look,
    car_colours,
    ground_colours,
    house_roof_colours,
    tree_colours,
    wall_colours,
)
from geodtr.training.world.cover import ground_cover
from geodtr.training.world.hashing import Feature
from geodtr.training.world.objects import Boxes, Shown, Things, tops
from geodtr.training.world.scene import SIGHT, Scene, Surface
from geodtr.training.world.style import Style
from geodtr.training.world.views.points import Points, Seen, View, seen

CAMERA = 2.0
"""Height of the camera above the ground in metres."""

_NEAREST = 1.5  # metres to a ray's first sample
_BLUE, _GREY = np.array([(0.30, 0.50, 0.80), (0.62, 0.66, 0.70)], np.float32)
_TYRES = np.float32(0.1)
_CAR_WINDOWS = np.float32(0.2)
_WINDOWS = np.array([0.22, 0.27, 0.33], np.float32)
_STOREY = 2.9  # metres
_HOUSE_BAY, _HALL_BAY = 2.3, 1.6  # metres from window to window


@dataclass(frozen=True, slots=True)
class Sky:
    """The sky of each of B panoramas."""

    horizon: Floats
    """Colour at the horizon and of haze, [3]."""
    overcast: Floats
    """0 (blue) to 1 (grey), [B]."""
    clouds: Floats
    """Phases of the two cloud waves in radians, [B, 2]."""


def draw_sky(style: Style, generators: Generators) -> Sky:
    """Draw a sky for each pair."""
    overcast = np.array([random.uniform(*style.overcast) for random in generators], np.float32)
    horizon = np.array(style.colours.horizon, np.float32)
    return Sky(horizon, overcast, np.array([random.uniform(0, 9, 2) for random in generators], np.float32))


def ground_view(scene: Scene, look: Look, sky: Sky, *, yaw: NDArray[np.float64], height: int, width: int) -> View:
    """Panoramas of `height` x `width` pixels at the scene's locations, rotated clockwise by `yaw`, [B] radians."""
    azimuth = (2 * math.pi / width * np.arange(width) + yaw[:, None]).astype(np.float32)
    pitch = ((0.5 - (np.arange(height) + 0.5) / height) * (2 * math.pi * height / width)).astype(np.float32)
    horizon = int(np.count_nonzero(pitch > -1e-3))  # the first row below the horizon
    ends = np.zeros(height, np.float32)
    ends[horizon:] = np.minimum(CAMERA / np.tan(-pitch[horizon:]), SIGHT)

    east, north = -np.sin(azimuth), -np.cos(azimuth)
    shown, distance = _cast(scene.things, east, north, pitch, ends)
    shape = (len(yaw), height * width)
    points = Points(
        x=(east[:, None] * distance).reshape(shape),
        y=(north[:, None] * distance).reshape(shape),
        z=(CAMERA + distance * np.tan(pitch)[:, None]).reshape(shape),
    )
    below = slice(horizon * width, None)
    cover = ground_cover(scene, points.x[:, below], points.y[:, below])
    colour = np.concatenate([_sky_colours(sky, azimuth, pitch[:horizon]), ground_colours(look, cover)], axis=1)
    _paint_things(colour.reshape(-1, 3), scene, shown, points, look)
    haze = 1 - np.exp(distance * np.float32(-1 / look.style.haze))
    colour += haze.reshape(shape)[..., None] * (sky.horizon - colour)

    surface = np.full(shape, Surface.SKY, np.uint8)
    surface[:, below] = cover.surface
    kind = shown.kind.reshape(shape)
    return View(colour, np.where(kind > 0, kind, surface))


def _cast(
    things: Mapping[int, Things], east: Floats, north: Floats, pitch: Floats, ends: Floats
) -> tuple[Shown, Floats]:
    """The first object on each pixel's ray, and the ray's length along the ground in metres, [B, height, width].

    `east` and `north` are the directions of the columns, [B, width]; `pitch` and `ends` belong to the rows, [height].
    A ray without an object ends at `ends` metres.
    """
    samples = _samples(len(pitch))
    locations, width = east.shape
    x, y = ((part[:, :, None] * samples).reshape(locations, -1) for part in (east, north))
    height, shown = tops(things, x, y)
    elevation = np.arctan2(height.reshape(-1, len(samples)) - CAMERA, samples)
    # A ray ends at the first sample that is as high as the ray. The running maximum of the elevation is sorted, so
    # bisection finds the sample. Offsets of 10 radians per column make one sorted sequence of all columns.
    offset = 10.0 * np.arange(locations * width)[:, None]
    rising = (np.maximum.accumulate(elevation, axis=1) + offset).ravel()
    met = np.searchsorted(rising, (pitch + offset).ravel()).reshape(locations, width, -1).transpose(0, 2, 1)
    first = (np.arange(locations * width) * len(samples)).reshape(locations, 1, width)
    step = met - first
    missed = step == len(samples)
    step[missed] = 0
    met = first + step
    kind = shown.kind.take(met)
    kind[missed] = 0
    distance = np.where(kind > 0, samples.take(step), ends[:, None])
    return Shown(kind.ravel(), shown.thing.take(met).ravel()), distance


def _samples(height: int) -> Floats:
    """Distances in metres at which a ray is sampled; denser for panoramas with more rows."""
    finer = min(1.0, 48 / height)
    distances = [_NEAREST]
    while distances[-1] < SIGHT:
        distances.append(distances[-1] + finer * max(0.35, 0.035 * distances[-1]))
    return np.array(distances, np.float32)


def _sky_colours(sky: Sky, azimuth: Floats, pitch: Floats) -> Floats:
    """The sky above the horizon, [B, rows * width, 3]."""
    zenith = _BLUE + sky.overcast[:, None, None] * (_GREY - _BLUE)
    height: Floats = np.minimum(pitch / np.float32(0.8), 1)
    gradient = sky.horizon + height[:, None] * (zenith - sky.horizon)
    waves = np.sin(3 * azimuth + sky.clouds[:, :1])[:, None, :] * np.sin(9 * pitch + sky.clouds[:, 1:])[:, :, None]
    colour: Floats = gradient[:, :, None] + 0.12 * np.maximum(waves, 0)[..., None]
    return colour.reshape(len(azimuth), -1, 3)


def _paint_things(pixels: Floats, scene: Scene, shown: Shown, points: Points, look: Look) -> None:
    """Colour the pixels [B * N, 3] that show an object."""
    walls = seen(Surface.HALL, shown, points, look)
    pixels[walls.pixel] = _hall_walls(scene.halls, walls)
    walls = seen(Surface.HOUSE, shown, points, look)
    pixels[walls.pixel] = _house_walls(scene.houses, walls)
    parked = seen(Surface.CAR, shown, points, look)
    pixels[parked.pixel] = _car_sides(scene.cars, parked)
    crowns = seen(Surface.TREE, shown, points, look)
    pixels[crowns.pixel] = _crowns(scene, crowns)


def _hall_walls(halls: Boxes, walls: Seen) -> Floats:
    sideways, light = _face(halls, walls)
    colour = wall_colours(walls.style.colours, halls.tone.take(walls.thing))
    return _with_windows(colour, sideways, walls.z, _HALL_BAY) * light


def _house_walls(houses: Boxes, walls: Seen) -> Floats:
    """Colours of walls below and of the roof above the eaves, [M, 3]."""
    sideways, light = _face(houses, walls)
    colours, tone = walls.style.colours, houses.tone.take(walls.thing)
    colour = _with_windows(wall_colours(colours, tone), sideways, walls.z, _HOUSE_BAY)
    roof = walls.z > 0.78 * houses.height.take(walls.thing)
    return np.where(roof[:, None], 0.85 * house_roof_colours(colours, tone), colour) * light


def _car_sides(cars: Boxes, parked: Seen) -> Floats:
    _, light = _face(cars, parked)
    colour = car_colours(cars.tone.take(parked.thing))
    colour[parked.z < 0.4] = _TYRES
    colour[(parked.z > 0.9) & (parked.z < 1.35)] = _CAR_WINDOWS
    return colour * light


def _crowns(scene: Scene, crowns: Seen) -> Floats:
    """Colours of leaves in patches of 0.4 m, dark at the base, [M, 3]."""
    trees = scene.trees
    patch = (np.floor(2.5 * crowns.x).astype(np.int32), np.floor(2.5 * crowns.z).astype(np.int32))
    (leaves,) = scene.world.draw(Feature.LEAVES, patch, 1)
    light = 0.75 + 0.5 * leaves
    light[crowns.z < 0.22 * trees.height.take(crowns.thing)] *= 0.45
    conifer, tone = trees.conifer.take(crowns.thing), trees.tone.take(crowns.thing)
    colour = tree_colours(crowns.style.colours, crowns.season, conifer, tone)
    return colour * light[:, None]


def _face(boxes: Boxes, walls: Seen) -> tuple[Floats, Floats]:
    """Each pixel's position along its wall in metres, [M], and the light on it, [M, 1]."""
    along, across = boxes.local(walls.x, walls.y, walls.thing)
    sun_along, sun_across = boxes.turned(walls.sun_east, walls.sun_north, walls.thing)
    at_end = np.abs(along) / boxes.half_length.take(walls.thing) > np.abs(across) / boxes.half_width.take(walls.thing)
    outward, sun = np.where(at_end, along, across), np.where(at_end, sun_along, sun_across)
    light: Floats = np.float32(0.8) + np.float32(0.25) * np.where(outward > 0, sun, -sun)
    return np.where(at_end, across, along), light[:, None]


def _with_windows(colour: Floats, sideways: Floats, z: Floats, bay: float) -> Floats:
    storey, column = np.mod(z / _STOREY, 1), np.mod(sideways / bay, 1)
    window = (storey > 0.35) & (storey < 0.78) & (column > 0.3) & (column < 0.75)
    return np.where(window[:, None], _WINDOWS, colour)
