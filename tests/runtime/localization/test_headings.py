"""A heading means the same everywhere: in the generated world, in a data set, and in the search over rotations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.images.intake import is_full_turn
from geodtr.runtime.images.polar import polar_transform
from geodtr.runtime.localization.headings import best_turns, turn
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.spec import Images
from geodtr.training.world.colours import draw_look, photograph
from geodtr.training.world.hashing import Feature
from geodtr.training.world.regions import choose_positions, find_region
from geodtr.training.world.scene import build_scene
from geodtr.training.world.terrain import World
from geodtr.training.world.views.ground import draw_sky, ground_view

HEIGHT, WIDTH = 24, 96


def render(heading: float) -> Images:
    """A panorama of the generated world whose middle column looks to `heading`, without noise."""
    region = find_region("coast")
    world = World(0, region.style)
    positions = choose_positions(world, region, 1)
    chance = [np.random.default_rng(1)]
    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_THE_ROAD)
    look, sky = draw_look(world.style, chance, 0.0), draw_sky(world.style, chance)
    yaw = np.array([math.radians(heading)])
    view = ground_view(scene, look, sky, yaw=yaw, height=HEIGHT, width=WIDTH)
    return photograph(view.colour, look, [np.random.default_rng(2)]).reshape(HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("heading", [90.0, 180.0, 270.0, 15.0])
def test_a_panorama_of_the_generated_world_is_aligned_by_rotating_its_heading(heading: float) -> None:
    aligned, turned = render(0.0).astype(int), turn(render(heading), 24)
    # Sensor noise differs by pixel; everything else must be equal.
    away = np.abs(turned.images.astype(int) - aligned).mean(axis=(1, 2, 3))
    best = int(np.argmin(away))
    assert turned.headings[best] == pytest.approx(heading)
    assert away[best] < 0.5 * np.sort(away)[1]


def test_a_panorama_of_heading_90_shows_east_in_its_middle() -> None:
    tile = np.zeros((32, 32, 3), np.uint8)
    tile[:, 24:] = 255  # something bright in the east
    aligned = polar_transform(tile, 16, 64)
    assert aligned[:4, 48].mean() > 200
    assert aligned[:4, 32].mean() < 50
    east_ahead = np.roll(aligned, -16, axis=1)
    assert east_ahead[:4, 32].mean() > 200
    turned = turn(east_ahead, 4)
    assert turned.headings.tolist() == [0, 90, 180, 270]
    np.testing.assert_array_equal(turned.images[1], aligned)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_rotations_are_whole_columns_and_match_their_heading(width: int, share: float, seed: int) -> None:
    count = 1 + round(share * (width - 1))
    panorama = np.random.default_rng(seed).integers(0, 256, (3, width, 3), dtype=np.uint8)
    turns = turn(panorama, count)
    assert turns.images.shape == (count, 3, width, 3)
    np.testing.assert_array_equal(turns.images[0], panorama)
    for image, heading in zip(turns.images, turns.headings, strict=True):
        columns = heading / 360 * width
        assert columns == pytest.approx(round(columns))
        np.testing.assert_array_equal(image, np.roll(panorama, round(columns), axis=1))
    steps = np.diff(turns.headings, append=360.0)
    assert (np.abs(steps - 360 / count) <= 360 / width + 1e-9).all()


@pytest.mark.parametrize("count", [0, -1, 9])
def test_more_rotations_than_columns_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="1 to 8"):
        turn(np.zeros((2, 8, 3), np.uint8), count)


def test_only_an_image_twice_as_wide_as_high_covers_a_full_rotation() -> None:
    assert is_full_turn(1024, 512)
    assert not is_full_turn(1920, 1080)


@settings(max_examples=60, deadline=None)
@given(turns=st.integers(1, 6), references=st.integers(1, 12), top=st.integers(1, 12), seed=st.integers(0, 99))
def test_each_tile_is_found_once_by_its_best_rotation(turns: int, references: int, top: int, seed: int) -> None:
    top = min(top, references)
    scores = np.random.default_rng(seed).permutation(turns * references).reshape(turns, references) / 100
    rows = np.argsort(-scores, axis=1)[:, :top]
    hits = Hits(rows, np.take_along_axis(scores, rows, axis=1).astype(np.float32))
    headings = np.arange(turns, dtype=np.float64) * (360 / turns)
    results = best_turns(hits, headings)
    best = np.argsort(-scores.max(axis=0))[:top]
    np.testing.assert_array_equal(results.rows, best)
    np.testing.assert_allclose(results.scores, scores.max(axis=0)[best], rtol=1e-6)
    np.testing.assert_array_equal(results.headings, headings[scores.argmax(axis=0)[best]])
