"""Regions with different styles: three are unchanged, and the desert differs."""

from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from geodtr.runtime.images.polar import polar_transform
from geodtr.training.world.regions import REGIONS, choose_positions
from geodtr.training.world.render import Rendering, render
from geodtr.training.world.scene import Surface
from geodtr.training.world.terrain import World

Numbers = NDArray[np.float64]
HEIGHT, WIDTH = 32, 128


@cache
def views(region: str, count: int = 100, height: int = HEIGHT, width: int = WIDTH) -> Rendering:
    """Both views of the first places of a region, never to be written to."""
    world = World(0, REGIONS[region].style)
    chance = [np.random.default_rng([7, index]) for index in range(count)]
    positions = choose_positions(world, REGIONS[region], count)
    return render(world, positions, chance, height=height, width=width)


def share(surfaces: NDArray[np.uint8], kinds: Iterable[Surface]) -> float:
    return float(np.isin(surfaces, list(kinds)).mean())


def turns(region: str) -> Numbers:
    """By how many degrees a road turns within 20 m, at 300 places of a region."""
    world = World(0, REGIONS[region].style)
    frame = world.frame(choose_positions(world, REGIONS[region], 300))
    here = np.zeros((300, 1), np.float32)
    start = world.roads(frame, here, here)
    end = world.roads(frame, 20 * start.east, 20 * start.north)
    # Its two directions are one and the same to a road.
    turned: Numbers = np.degrees(np.arccos(np.clip(np.abs(start.east * end.east + start.north * end.north), 0, 1)))
    return turned


# Mean colours of the first three tiles and panoramas, 16 x 64, when there was no other style: trained models and
# published figures rest on these images. Another machine's sines may round a pixel differently, and no more than that.
KEPT = {
    "valley": (
        [[135.4, 152.6, 75.2], [99.0, 87.3, 70.6], [96.8, 101.0, 83.0]],
        [[169.1, 149.5, 142.9], [101.4, 112.0, 127.3], [115.2, 126.5, 143.8]],
    ),
    "coast": (
        [[116.2, 137.2, 76.1], [96.2, 88.8, 65.5], [115.2, 108.3, 78.5]],
        [[161.1, 142.8, 148.3], [116.7, 127.6, 133.5], [101.0, 113.8, 113.0]],
    ),
    "plateau": (
        [[107.3, 123.8, 79.2], [70.4, 68.7, 55.8], [111.5, 109.5, 108.3]],
        [[142.9, 129.7, 140.0], [94.4, 106.0, 117.6], [111.3, 122.2, 145.5]],
    ),
}


@pytest.mark.parametrize("region", KEPT)
def test_the_temperate_regions_look_as_they_always_did(region: str) -> None:
    first = views(region, count=3, height=16, width=64)

    aerial, ground = KEPT[region]
    np.testing.assert_allclose(first.aerial.mean(axis=(1, 2)), aerial, atol=0.3)
    np.testing.assert_allclose(first.ground.mean(axis=(1, 2)), ground, atol=0.3)


def test_the_desert_is_red_where_the_valley_is_green() -> None:
    for branch in ("aerial", "ground"):
        red, green, _ = (getattr(views("desert"), branch) / 255.0).mean(axis=(0, 1, 2))
        red_there, green_there, _ = (getattr(views("valley"), branch) / 255.0).mean(axis=(0, 1, 2))
        assert red > green
        assert green_there > red_there


def test_the_desert_has_more_buildings_and_fewer_trees_than_the_valley() -> None:
    built, trees = (Surface.HOUSE, Surface.HALL), (Surface.TREE,)
    for branch in ("aerial_surface", "ground_surface"):
        desert, valley = getattr(views("desert"), branch), getattr(views("valley"), branch)
        assert share(desert, built) > 1.5 * share(valley, built)
        assert share(desert, trees) < 0.75 * share(valley, trees)


def test_roads_are_straighter_in_the_desert_than_in_the_valley() -> None:
    assert np.median(turns("desert")) < 0.5 * np.median(turns("valley"))


@pytest.mark.parametrize("region", ["valley", "desert"])
def test_few_scenes_are_empty(region: str) -> None:
    bare = (Surface.OPEN, Surface.ROAD)
    empty = [share(tile, bare) > 0.99 for tile in views(region).aerial_surface]

    assert np.mean(empty) < 0.05
    assert views(region).aerial.std(axis=(1, 2, 3)).min() > 10


@pytest.mark.parametrize("region", ["valley", "desert"])
def test_raw_pixels_give_little_of_a_region_away(region: str) -> None:
    tiles = np.array([polar_transform(tile, HEIGHT, WIDTH) for tile in views(region).aerial])

    similarity = unit_rows(views(region).ground) @ unit_rows(tiles).T

    assert np.mean(similarity.argmax(axis=1) == np.arange(len(tiles))) < 0.25


def unit_rows(images: NDArray[np.uint8]) -> Numbers:
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    unit: Numbers = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
