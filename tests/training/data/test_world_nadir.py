"""Nadir frames of the generated world: where the camera looks, what it sees, and what is written about it."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geodtr.runtime.errors import ConfigError, OutputExists
from geodtr.runtime.geodesy import distance
from geodtr.runtime.images.decode import read_image
from geodtr.runtime.images.nadir import north_up
from geodtr.runtime.localization.nadir.alignment import Aligner, spectra_of
from geodtr.runtime.localization.nadir.map_window import MapWindow
from geodtr.runtime.sources.registry import open_source
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.world.colours import draw_look, photograph
from geodtr.training.world.dataset import WorldSet, write_world
from geodtr.training.world.flight import FlightSet, read_truth, write_flight
from geodtr.training.world.hashing import Feature
from geodtr.training.world.regions import find_region
from geodtr.training.world.scene import build_scene
from geodtr.training.world.terrain import World
from geodtr.training.world.views.aerial import EXTENT, aerial_view
from geodtr.training.world.views.nadir import Camera, nadir_frame

REGION = find_region("coast")
POSITION = np.array([REGION.east + 100.0, REGION.north + 300.0])


def test_a_camera_looks_where_it_is_tilted() -> None:
    camera = Camera(100.0, 30.0, tilt=10.0, towards=60.0)
    middle = camera.ground(np.array([camera.width / 2]), np.array([camera.height / 2]))[0]
    assert np.allclose(middle, (100 * math.tan(math.radians(10)), 0), atol=1e-9)  # 30 + 60 degrees: east
    upright = Camera(100.0, 90.0, fov=90.0, width=400, height=300)
    upper_left = upright.ground(np.array([0.0]), np.array([0.0]))[0]
    assert np.allclose(upper_left, (75, 100))


@pytest.mark.parametrize("heading", [0.0, 115.0])
def test_a_frame_shows_what_the_map_shows(heading: float) -> None:
    """In the same light a frame, north up, is the tile but for objects that lean, other cars and noise."""
    world = World(0, REGION.style)
    camera = Camera(100.0, heading, height=200, width=260)
    frame = nadir_frame(world, POSITION, camera, np.random.default_rng(3), gap=0.0)
    look = draw_look(world.style, [np.random.default_rng(3)], 0.0)
    scene = build_scene(world, POSITION[None], Feature.CARS_SEEN_FROM_ABOVE)
    view = aerial_view(scene, look, centre=np.zeros((1, 2), np.float32), side=100)
    tile = photograph(view.colour, look, [np.random.default_rng(4)]).reshape(100, 100, 3)
    width = 200 * math.tan(math.radians(35))
    right, wrong = north_up(Image.fromarray(frame), width / 260, [heading, heading + 90], 100, EXTENT / 100)
    assert np.corrcoef(right.ravel(), tile.ravel())[0, 1] > 0.85
    assert np.corrcoef(wrong.ravel(), tile.ravel())[0, 1] < 0.6


def test_a_flight_is_a_map_and_frames_with_the_truth_about_them(tmp_path: Path) -> None:
    flight = FlightSet(frames=2, side=180, stride=60, tile_pixels=24, height=30, width=40, blur=8)
    table = write_flight(tmp_path / "flight", flight, workers=1)
    truth = read_truth(table)
    source = open_source(tmp_path / "flight" / "tiles")
    assert len(source.tiles) == 9
    assert {tile.metres_per_pixel for tile in source.tiles} == {2.5}
    assert source.read(source.tiles[0]).image.size == (24, 24)
    lat, lon = (np.array([getattr(tile, name) for tile in source.tiles[:2]], np.float64) for name in ("lat", "lon"))
    assert distance(lat[0], lon[0], lat[1], lon[1]) == pytest.approx(60, rel=0.003)
    for frame in truth:
        assert Image.open(tmp_path / "flight" / frame.file).size == (40, 30)
        assert 60 <= frame.altitude <= 120
        assert frame.ground_metres == pytest.approx(2 * frame.altitude * math.tan(math.radians(35)), rel=1e-4)
        assert 0 <= frame.tilt <= 10
    again = write_flight(tmp_path / "again", flight, workers=1)
    assert again.read_bytes() == table.read_bytes()
    assert (again.parent / truth[0].file).read_bytes() == (table.parent / truth[0].file).read_bytes()
    with pytest.raises(OutputExists):
        write_flight(tmp_path / "flight", flight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"altitude": (100.0, 60.0)}, "the highest altitude is 60; allowed are 100"),
        ({"tilt": 30.0}, "tilt is 30; allowed are 0 to 20"),
        ({"stride": 90.0}, "stride is 90; allowed are 1 to 60"),
        ({"region": "moon"}, "no region 'moon'"),
    ],
)
def test_a_flight_out_of_range_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlightSet(**{"frames": 1, **change})  # type: ignore[arg-type]


def test_pairs_of_a_frame_and_a_tile_show_one_place(tmp_path: Path) -> None:
    """The frame is cropped like the tile, and nearer to it than to any other."""
    options = WorldSet(pairs=6, height=64, width=64, view="nadir")
    table = write_world(tmp_path / "set", options, workers=1)
    pairs = read_pairs(table.parent).pairs
    ground, aerial = (np.stack([read_image(getattr(pair, name)) for pair in pairs]) for name in ("ground", "aerial"))
    assert ground.shape == aerial.shape == (6, 64, 64, 3)
    scores = np.zeros((6, 6))
    for row, frame in enumerate(ground):
        for column, tile in enumerate(aerial):
            window = MapWindow(np.pad(tile, ((32, 32), (32, 32), (0, 0))), np.pad(np.ones((64, 64), bool), 32), 1.0)
            scores[row, column] = Aligner(frame).align(spectra_of(window), [-16, -8, 0, 8, 16], [60.0]).score
    assert (scores.argmax(axis=1) == np.arange(6)).mean() > 0.8
    assert all(pair.heading is not None and min(pair.heading, 360 - pair.heading) <= 20 for pair in pairs)
    again = write_world(tmp_path / "again", WorldSet(pairs=2, height=64, width=64, view="nadir"), workers=1)
    assert (again.parent / "ground/000001.png").read_bytes() == (table.parent / "ground/000001.png").read_bytes()


def test_nadir_pairs_are_square() -> None:
    with pytest.raises(ConfigError, match="48x192; nadir frames are cropped to squares"):
        WorldSet(pairs=1, view="nadir")
