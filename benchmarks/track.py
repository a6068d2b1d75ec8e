"""Compare localisation by frame with tracking on a drive through the generated world: benchmarks/track.py BUNDLE WORK

Follows the roads of a region that the model was not trained on. Renders a grid of tiles around the route and a panorama
every half second, with its centre column in driving direction. Writes them to WORK with an odometry.csv with realistic
errors, builds a gallery, and localises with unknown headings and without a prior. Prints median errors and their ratio.
An existing WORK is reused.
"""

import argparse
import csv
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr import Localizer, build_gallery, open_bundle
from geodtr.cli.console import track
from geodtr.export.plots.files import save_picture
from geodtr.export.plots.track import track_plot
from geodtr.runtime.files import new_folder
from geodtr.runtime.gallery.ground import ground_of
from geodtr.runtime.geodesy import distance
from geodtr.runtime.tracking.filter import TrackOptions
from geodtr.runtime.tracking.odometry import read_odometry
from geodtr.runtime.tracking.run import Tracked, track_odometry
from geodtr.training.world.drive import Route, follow_roads, grid_around, panoramas, write_tiles
from geodtr.training.world.regions import Region, find_region
from geodtr.training.world.terrain import World

Floats = NDArray[np.float64]
SECONDS = 0.5
MARGIN = 150.0
SPEED_ERROR, RATE_ERROR = 0.03, 0.5
GAP = range(60, 80)
_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--region", default="coast")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--headings", type=int, default=16, help="Headings to search; 1: a compass aligns panoramas.")
    parser.add_argument("--spacing", type=float, default=12.0, help="Distance between tiles in metres.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    region, work, bundle = find_region(options.region), options.work, options.bundle
    if not work.exists():
        compass = options.headings == 1
        _render(work, bundle, region, options.frames, options.spacing, options.seed, compass=compass)
    if not (work / "gallery").exists():
        build_gallery(work / "gallery", work / "tiles", bundle, track=track)

    localizer = Localizer.open(bundle, work / "gallery", headings=options.headings)
    truth = np.loadtxt(work / "truth.csv", delimiter=",", skiprows=1)
    start = time.perf_counter()
    drive = read_odometry(work / "odometry.csv")
    answers = list(track_odometry(localizer, drive, TrackOptions(seed=options.seed), track=track))
    taken = (time.perf_counter() - start) / len(answers)
    _report(answers, truth, taken)
    ground = partial(ground_of, localizer.gallery)
    picture = track_plot([answer.waypoint for answer in answers], *localizer.positions, track=True, ground=ground)
    save_picture(picture, work / "track.png", replace=True)
    print(f"Wrote {work / 'track.png'}")


def _report(answers: list[Tracked], truth: Floats, taken: float) -> None:
    lat, lon = truth.T
    frames = [(row, answer.located) for row, answer in enumerate(answers) if answer.located is not None]
    best = [located.candidates[0].place for _, located in frames]
    rows = [row for row, _ in frames]
    tiles = np.array([(location.lat, location.lon) for location in best], np.float64)
    by_tile = distance(tiles[:, 0], tiles[:, 1], lat[rows], lon[rows])
    fixes = [(row, located.fix) for row, located in frames if located.fix is not None]
    fixed = [row for row, _ in fixes]
    by_fix = distance([fix.lat for _, fix in fixes], [fix.lon for _, fix in fixes], lat[fixed], lon[fixed])
    # Every step has a position, because the first step has a frame.
    points = [answer.point for answer in answers]
    positions = np.array([(point.lat, point.lon) for point in points], np.float64)
    by_track = distance(positions[:, 0], positions[:, 1], lat, lon)
    tracking = np.array([point.state == "tracking" for point in points])

    print(f"{len(answers)} steps, {len(frames)} frames; {1e3 * taken:.0f} ms per step, including images")
    print(f"best tile    median {np.median(by_tile):7.1f} m   beyond 60 m: {(by_tile > 60).mean():.0%}")
    print(f"fix          median {np.median(by_fix):7.1f} m   beyond 60 m: {(by_fix > 60).mean():.0%}")
    print(f"track        median {np.median(by_track):7.1f} m   beyond 60 m: {(by_track > 60).mean():.0%}")
    if tracking.any():
        errors = by_track[tracking]
        print(f"  tracking   median {np.median(errors):7.1f} m   beyond 60 m: {(errors > 60).mean():.0%}")
        claimed = np.array([point.within_95 for point in points], np.float64)[tracking]
        print(
            f"  beyond three times the claimed 95 % radius: {(errors > 3 * claimed).mean():.1%} of the tracking steps"
        )
    print(f"tracking in {tracking.mean():.0%} of the steps")
    print(f"Error of the best tile of each frame / error of the track: {np.median(by_tile) / np.median(by_track):.1f}")


def _render(
    work: Path, bundle_path: Path, region: Region, frames: int, spacing: float, seed: int, *, compass: bool
) -> None:
    """Render all images into the folder `work`; with `compass`, panoramas are aligned with north."""
    bundle = open_bundle(bundle_path)
    how = bundle.manifest.ground.spec.preprocessing
    world = World(0, region.style)
    route = follow_roads(world, region, frames, seed)
    headings = np.zeros(frames) if compass else route.headings
    with new_folder(work) as folder:
        (folder / "tiles").mkdir()
        centres = grid_around(route.positions, spacing, MARGIN)
        write_tiles(folder / "tiles", world, region, centres, 2 * how.height, seed, track=track)
        (folder / "frames").mkdir()
        for start in track(range(0, frames, _BATCH), "Rendering frames", math.ceil(frames / _BATCH)):
            part = slice(start, start + _BATCH)
            views = panoramas(world, route.positions[part], headings[part], how.height, how.width, seed + start)
            for row, view in enumerate(views, start):
                Image.fromarray(view).save(folder / "frames" / f"{row:06d}.png")
        _write_odometry(folder, route, region, seed)


def _write_odometry(folder: Path, route: Route, region: Region, seed: int) -> None:
    """Write odometry.csv with a scale error and noise, and without images in the gap; write truth.csv."""
    random = np.random.default_rng((seed, 2))
    count = len(route.headings)
    travelled = np.hypot(*np.diff(route.positions, axis=0, prepend=route.positions[:1]).T)
    scale = 1 + SPEED_ERROR * random.standard_normal()
    speed = travelled / SECONDS * (scale + SPEED_ERROR * random.standard_normal(count))
    yaw = route.headings + np.cumsum(RATE_ERROR * SECONDS * random.standard_normal(count))
    with (folder / "odometry.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("time_s", "speed_m_s", "yaw_deg", "image"))
        for row in range(count):
            image = "" if row in GAP else f"frames/{row:06d}.png"
            # Readers take the mean speed of two rows for the time between them.
            writer.writerow((f"{row * SECONDS:.2f}", f"{speed[row]:.3f}", f"{yaw[row]:.3f}", image))
    np.savetxt(folder / "truth.csv", region.coordinates(route.positions), "%.8f", ",", header="lat,lon", comments="")


if __name__ == "__main__":
    main()
