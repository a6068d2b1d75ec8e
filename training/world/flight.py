"""Write a generated flight: a map as a folder of tiles, and nadir frames with ground truth.

The number of processes does not change the result.
"""

import csv
import math
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import new_folder
from geodtr.runtime.progress import Track, untracked
from geodtr.training.world.arrays import Positions
from geodtr.training.world.colours import GAP
from geodtr.training.world.regions import Region, find_region
from geodtr.training.world.render import list_tiles, render_tiles
from geodtr.training.world.terrain import World
from geodtr.training.world.views.aerial import EXTENT
from geodtr.training.world.views.nadir import Camera, draw_camera, nadir_frame
from geodtr.training.world.workers import checked_workers, run_jobs

FRAMES, TILES = "frames.csv", "tiles/tiles.csv"

_TILES_PER_JOB, _FRAMES_PER_JOB = 16, 4
_INSIDE = EXTENT
"""Metres by which every frame's position is inside the map."""


@dataclass(frozen=True, slots=True)
class FlightSet:
    """What to render: `frames` at random places of a square map, each with a random heading, altitude, tilt and blur,
    and with other light, season and cars than the map. Raises ConfigError for values out of range.
    """

    frames: int
    side: float = 600.0
    """Side of the map in metres."""
    stride: float = 30.0
    """Metres between tiles' centres; a tile is 60 m wide."""
    tile_pixels: int = 240
    altitude: tuple[float, float] = (60.0, 120.0)
    """Metres above the ground, at most 300."""
    tilt: float = 10.0
    """Largest angle between the camera's axis and the vertical, degrees."""
    blur: float = 3.0
    """Longest motion during the exposure, pixels."""
    gap: float = GAP
    """Log-normal sigma of each ground material's colour, in the map and in each frame."""
    fov: float = 70.0
    """Angle of the frame's width, degrees."""
    height: int = 300
    width: int = 400
    region: str = "coast"
    """A name in regions.REGIONS."""
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.altitude
        for name, value, least, most in (
            ("frames", self.frames, 1, 1_000_000),
            ("side", self.side, 3 * EXTENT, find_region(self.region).side),
            ("stride", self.stride, 1, EXTENT),
            ("tile_pixels", self.tile_pixels, 16, 2048),
            ("the lowest altitude", low, 20, 300),
            ("the highest altitude", high, low, 300),
            ("tilt", self.tilt, 0, 20),
            ("blur", self.blur, 0, 50),
            ("gap", self.gap, 0, 1),
            ("fov", self.fov, 10, 100),
            ("height", self.height, 16, 4096),
            ("width", self.width, 16, 4096),
            ("seed", self.seed, 0, math.inf),
        ):
            if not least <= value <= most:
                raise ConfigError(f"{name} is {value:g}; allowed are {least:g} to {most:g}.")


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """One row of frames.csv. `lat` and `lon` are of the point below the camera; `altitude` and `ground_metres`, the
    width that the frame would show without tilt, are in metres; angles in degrees as Camera's, `fov` of the width.
    """

    file: str
    lat: float
    lon: float
    altitude: float
    ground_metres: float
    fov: float
    heading: float
    tilt: float
    towards: float
    blur: float


@dataclass(frozen=True, slots=True)
class _Job:
    folder: Path
    flight: FlightSet
    first: int
    positions: Positions
    """World metres [B, 2] of tiles' centres, or of cameras."""
    frames: bool


def write_flight(out: Path, flight: FlightSet, *, workers: int | None = None, track: Track = untracked) -> Path:
    """Write tiles/ with tiles.csv and frames/ with frames.csv into the folder `out`; return out/frames.csv.

    tiles/ is a source of a gallery. A failed or interrupted call leaves no files. Raises OutputExists when `out` is not
    empty.
    """
    workers = checked_workers(workers)
    region = find_region(flight.region)
    steps = math.ceil((flight.side - EXTENT) / flight.stride - 1e-9)
    line = (np.arange(steps + 1) - steps / 2) * flight.stride
    centre = np.array([region.east, region.north])
    tiles = centre + np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    random = np.random.default_rng(np.random.SeedSequence(flight.seed, spawn_key=(region.number, 0)))
    reach = flight.side / 2 - _INSIDE
    cameras = centre + random.uniform(-reach, reach, (flight.frames, 2))
    with new_folder(out) as folder:
        (folder / "tiles").mkdir()
        (folder / "frames").mkdir()
        jobs = [
            *_jobs(folder, flight, tiles, _TILES_PER_JOB, frames=False),
            *_jobs(folder, flight, cameras, _FRAMES_PER_JOB, frames=True),
        ]
        count = len(tiles) + flight.frames
        with closing(run_jobs(_render_and_write, jobs, min(workers, len(jobs)))) as done:
            each = (camera for rendered in done for camera in rendered)
            poses = [camera for camera in track(each, "Rendering", count) if camera is not None]
        _write_tables(folder, flight, region, tiles, cameras, poses)
    return out / FRAMES


def _jobs(folder: Path, flight: FlightSet, positions: Positions, size: int, *, frames: bool) -> list[_Job]:
    starts = range(0, len(positions), size)
    return [_Job(folder, flight, start, positions[start : start + size], frames) for start in starts]


def _render_and_write(job: _Job) -> list[tuple[Camera, float] | None]:
    """A camera and its blur for each frame, None for each tile."""
    flight, world = job.flight, World(0, find_region(job.flight.region).style)
    if not job.frames:
        for row, pixels in enumerate(_tiles(world, job), job.first):
            Image.fromarray(pixels).save(job.folder / "tiles" / f"{row:06d}.png")
        return [None] * len(job.positions)
    poses = list[tuple[Camera, float] | None]()
    for row, position in enumerate(job.positions, job.first):
        random = np.random.default_rng(np.random.SeedSequence(flight.seed, spawn_key=(1, row)))
        camera = draw_camera(
            random, flight.altitude, flight.tilt, fov=flight.fov, height=flight.height, width=flight.width
        )
        blur = random.uniform(0, flight.blur)
        pixels = nadir_frame(world, position, camera, random, gap=flight.gap, blur=blur)
        Image.fromarray(pixels).save(job.folder / _frame_name(row))
        poses.append((camera, blur))
    return poses


def _tiles(world: World, job: _Job) -> NDArray[np.uint8]:
    """One picture of the whole map: each tile has the same look, and its own noise."""
    same = [np.random.default_rng((job.flight.seed, 2)) for _ in job.positions]
    own = [np.random.default_rng((job.flight.seed, 3, job.first + row)) for row in range(len(job.positions))]
    return render_tiles(world, job.positions, job.flight.tile_pixels, same, own, job.flight.gap)


def _write_tables(
    folder: Path,
    flight: FlightSet,
    region: Region,
    tiles: Positions,
    cameras: Positions,
    poses: list[tuple[Camera, float]],
) -> None:
    list_tiles(folder / TILES, region, tiles, flight.tile_pixels)
    with (folder / FRAMES).open("w", newline="") as file:
        rows = csv.DictWriter(file, [field.name for field in fields(FrameTruth)])
        rows.writeheader()
        for row, ((camera, blur), (lat, lon)) in enumerate(
            zip(poses, region.coordinates(cameras).tolist(), strict=True)
        ):
            width = 2 * camera.altitude * math.tan(math.radians(camera.fov) / 2)
            truth = FrameTruth(
                file=_frame_name(row),
                lat=round(lat, 8),
                lon=round(lon, 8),
                altitude=round(camera.altitude, 3),
                ground_metres=round(width, 3),
                fov=camera.fov,
                heading=round(camera.heading, 3) % 360,
                tilt=round(camera.tilt, 3),
                towards=round(camera.towards, 3) % 360,
                blur=round(blur, 2),
            )
            rows.writerow(asdict(truth))


def read_truth(path: Path) -> list[FrameTruth]:
    """The rows of a frames.csv."""
    with path.open(newline="") as file:
        return [
            FrameTruth(row["file"], *(float(row[field.name]) for field in fields(FrameTruth)[1:]))
            for row in csv.DictReader(file)
        ]


def _frame_name(row: int) -> str:
    return f"frames/{row:06d}.png"
