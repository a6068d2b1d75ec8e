"""A drive through the generated world, frame by frame and as a track: python benchmarks/track.py BUNDLE WORK

Follows the roads of a region that the model has not seen, renders a grid of tiles around the way and a panorama every
half second whose middle looks forward, writes them to WORK with an odometry.csv that errs as real ones do, builds a
gallery, and localises with unknown headings and without a prior. Prints median errors and their ratio. A WORK that is
there is used again.
"""

import argparse
import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.cli.console import track
from geodtr.export.plots.files import save_picture
from geodtr.export.plots.track import track_plot
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.files import new_folder
from geodtr.runtime.gallery.build import build_gallery
from geodtr.runtime.gallery.manifest import made_by
from geodtr.runtime.geodesy import distance
from geodtr.runtime.localization.localizer import Localizer
from geodtr.runtime.sources.tile import ListedTiles, Tile
from geodtr.runtime.spec import Images
from geodtr.runtime.tracking.filter import TrackOptions
from geodtr.runtime.tracking.odometry import read_odometry
from geodtr.runtime.tracking.run import Tracked, track_odometry
from geodtr.training.world.aerial import aerial_view
from geodtr.training.world.arrays import Positions
from geodtr.training.world.colours import draw_look, photograph
from geodtr.training.world.ground import draw_sky, ground_view
from geodtr.training.world.hashing import Feature
from geodtr.training.world.regions import Region, choose_positions, find_region
from geodtr.training.world.render import Differences
from geodtr.training.world.scene import build_scene
from geodtr.training.world.terrain import World

Floats = NDArray[np.float64]
SECONDS, SPEED = 0.5, 10.0
MARGIN = 150.0
SPEED_ERROR, RATE_ERROR = 0.03, 0.5
GAP = range(60, 80)
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Way:
    """World metres [F, 2] and headings in degrees clockwise from north [F], a frame every half second."""

    positions: Positions
    headings: Floats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--region", default="coast")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--headings", type=int, default=16, help="1: a compass turns panoramas north up")
    parser.add_argument("--spacing", type=float, default=12.0, help="metres from tile to tile")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    region = find_region(asked.region)
    if not asked.work.exists():
        _make(asked.work, asked.bundle, region, asked.frames, asked.spacing, asked.seed, compass=asked.headings == 1)
    if not (asked.work / "gallery").exists():
        _build(asked.work, asked.bundle)

    localizer = Localizer.open(asked.bundle, asked.work / "gallery", headings=asked.headings)
    truth = np.loadtxt(asked.work / "truth.csv", delimiter=",", skiprows=1)
    start = time.perf_counter()
    drive = read_odometry(asked.work / "odometry.csv")
    answers = list(track_odometry(localizer, drive, TrackOptions(seed=asked.seed), track=track))
    taken = (time.perf_counter() - start) / len(answers)
    _report(answers, truth, taken)
    picture = track_plot([answer.waypoint for answer in answers], *localizer.positions, track=True)
    save_picture(picture, asked.work / "track.png")
    print(f"Wrote {asked.work / 'track.png'}")


def _report(answers: list[Tracked], truth: Floats, taken: float) -> None:
    lat, lon = truth.T
    frames = [(row, answer.located) for row, answer in enumerate(answers) if answer.located is not None]
    best = [located.candidates[0].place for _, located in frames]
    rows = [row for row, _ in frames]
    places = np.array([(place.lat, place.lon) for place in best], np.float64)
    by_tile = distance(places[:, 0], places[:, 1], lat[rows], lon[rows])
    fixes = [(row, located.fix) for row, located in frames if located.fix is not None]
    fixed = [row for row, _ in fixes]
    by_fix = distance([fix.lat for _, fix in fixes], [fix.lon for _, fix in fixes], lat[fixed], lon[fixed])
    # Steps before the first frame have no position; there are none here.
    points = [answer.point for answer in answers]
    found = np.array([(point.lat, point.lon) for point in points], np.float64)
    by_track = distance(found[:, 0], found[:, 1], lat, lon)
    tracking = np.array([point.state == "tracking" for point in points])

    print(f"{len(answers)} steps, {len(frames)} frames; {1e3 * taken:.0f} ms a step, images included")
    print(f"best tile    median {np.median(by_tile):7.1f} m   beyond 60 m: {(by_tile > 60).mean():.0%}")
    print(f"fix          median {np.median(by_fix):7.1f} m   beyond 60 m: {(by_fix > 60).mean():.0%}")
    print(f"track        median {np.median(by_track):7.1f} m   beyond 60 m: {(by_track > 60).mean():.0%}")
    if tracking.any():
        sure = by_track[tracking]
        print(f"  tracking   median {np.median(sure):7.1f} m   beyond 60 m: {(sure > 60).mean():.0%}")
    print(f"tracking in {tracking.mean():.0%} of the steps")
    print(f"{np.median(by_tile) / np.median(by_track):.1f} times closer than the best tile of each frame")


def _make(
    work: Path, bundle_path: Path, region: Region, frames: int, spacing: float, seed: int, *, compass: bool
) -> None:
    """Render everything into the folder `work`, panoramas north up where a `compass` turns them."""
    bundle = open_bundle(bundle_path)
    how = bundle.manifest.ground.spec.preprocessing
    world = World(0, region.style)
    way = _follow_roads(world, region, frames, seed)
    looks = np.zeros(frames) if compass else way.headings
    with new_folder(work) as folder:
        tiles = _grid_around(way.positions, spacing)
        (folder / "tiles").mkdir()
        (folder / "frames").mkdir()
        np.savetxt(folder / "tiles.csv", region.coordinates(tiles), "%.8f", ",")
        for start in track(range(0, len(tiles), _BATCH), "Rendering tiles", math.ceil(len(tiles) / _BATCH)):
            for row, tile in enumerate(
                _tiles(world, tiles[start : start + _BATCH], 2 * how.height, seed + start), start
            ):
                Image.fromarray(tile).save(folder / "tiles" / f"{row:06d}.png")
        for start in track(range(0, frames, _BATCH), "Rendering frames", math.ceil(frames / _BATCH)):
            part = slice(start, start + _BATCH)
            views = _panoramas(world, way.positions[part], looks[part], how.height, how.width, seed + start)
            for row, view in enumerate(views, start):
                Image.fromarray(view).save(folder / "frames" / f"{row:06d}.png")
        _write_odometry(folder, way, region, seed)


def _build(work: Path, bundle_path: Path) -> None:
    """The gallery of the rendered tiles."""
    bundle = open_bundle(bundle_path)
    places = np.loadtxt(work / "tiles.csv", delimiter=",").tolist()
    tiles = [Tile(f"{row:06d}", str(work / "tiles" / f"{row:06d}.png"), *place) for row, place in enumerate(places)]
    source = ListedTiles(str(work), tiles)
    build_gallery(work / "gallery", source, bundle.embedder("aerial"), made_by(bundle.manifest), track=track)


def _follow_roads(world: World, region: Region, frames: int, seed: int) -> Way:
    """Along the roads from a place on one, turning off at some crossings."""
    random = np.random.default_rng(seed)
    place = choose_positions(world, region, seed + 1)[seed]
    course = random.uniform(-1, 1, 2)
    positions, headings = np.empty((frames, 2)), np.empty(frames)
    turning = True
    for frame in range(frames):
        side = np.linspace(-1.5, 1.5, 13, dtype=np.float32)[None]
        off = (side * -course[1] / np.hypot(*course), side * course[0] / np.hypot(*course))
        roads = world.roads(world.frame(place[None]), *(part.astype(np.float32) for part in off))
        middle = int(np.argmin(np.abs(roads.distance[0])))
        place = place + np.array([off[0][0, middle], off[1][0, middle]])
        ahead = np.array([roads.east[0, middle], roads.north[0, middle]], np.float64)
        ahead *= 1.0 if ahead @ course >= 0 else -1.0
        along = ahead @ course / np.hypot(*course)
        if along > 0.7:
            course, turning = ahead, bool(random.random() < 0.3)
        elif turning:
            course, turning = ahead, False
        positions[frame], headings[frame] = place, math.degrees(math.atan2(course[0], course[1])) % 360
        place = place + SPEED * SECONDS * course / np.hypot(*course)
    return Way(positions, headings)


def _grid_around(positions: Positions, spacing: float) -> Positions:
    """Tile centres on a square grid over the way and a margin, without those that lie farther off. The polar transform
    wants a tile's centre close to the camera: a model that was trained on such pairs wants a close grid.
    """
    low, high = positions.min(axis=0) - MARGIN, positions.max(axis=0) + MARGIN
    grid = np.stack(np.meshgrid(*(np.arange(a, b, spacing) for a, b in zip(low, high, strict=True))), axis=-1)
    tiles = grid.reshape(-1, 2)
    near = [np.hypot(*(positions - tile).T).min() <= MARGIN for tile in tiles]
    return np.asarray(tiles[near], np.float64)


def _tiles(world: World, positions: Positions, side: int, seed: int) -> Images:
    """Tiles as render() makes them, each centred on its position; [B, side, side, 3]."""
    chance = [np.random.default_rng((seed, 0, row)) for row in range(len(positions))]
    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_ABOVE)
    look = draw_look(world.style, chance, Differences().gap)
    view = aerial_view(scene, look, centre=np.zeros((len(positions), 2), np.float32), side=side)
    return photograph(view.colour, look, chance).reshape(-1, side, side, 3)


def _panoramas(world: World, positions: Positions, headings: Floats, height: int, width: int, seed: int) -> Images:
    """Panoramas likewise, whose middle column looks to `headings`; [B, height, width, 3]."""
    chance = [np.random.default_rng((seed, 1, row)) for row in range(len(positions))]
    scene = build_scene(world, positions, Feature.CARS_SEEN_FROM_THE_ROAD)
    look, sky = draw_look(world.style, chance, Differences().gap), draw_sky(world.style, chance)
    view = ground_view(scene, look, sky, yaw=np.radians(headings), height=height, width=width)
    return photograph(view.colour, look, chance).reshape(-1, height, width, 3)


def _write_odometry(folder: Path, way: Way, region: Region, seed: int) -> None:
    """odometry.csv with a scale and noise of its own, without images in the gap; truth.csv beside it."""
    random = np.random.default_rng((seed, 2))
    count = len(way.headings)
    moved = np.hypot(*np.diff(way.positions, axis=0, prepend=way.positions[:1]).T)
    scale = 1 + SPEED_ERROR * random.standard_normal()
    speed = moved / SECONDS * (scale + SPEED_ERROR * random.standard_normal(count))
    yaw = way.headings + np.cumsum(RATE_ERROR * SECONDS * random.standard_normal(count))
    with (folder / "odometry.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("time_s", "speed_m_s", "yaw_deg", "image"))
        for row in range(count):
            image = "" if row in GAP else f"frames/{row:06d}.png"
            # The speed between two rows is the mean of theirs.
            writer.writerow((f"{row * SECONDS:.2f}", f"{speed[row]:.3f}", f"{yaw[row]:.3f}", image))
    np.savetxt(folder / "truth.csv", region.coordinates(way.positions), "%.8f", ",", header="lat,lon", comments="")


if __name__ == "__main__":
    main()
