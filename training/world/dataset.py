"""Write a `pairs:` data set of the generated world, rendered by several processes.

The number of processes does not change the result.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import new_folder
from geodtr.runtime.names import Branch
from geodtr.runtime.progress import Track, untracked
from geodtr.training.data.readers.pairs_csv import FILE_NAME, write_pairs
from geodtr.training.world.arrays import Positions
from geodtr.training.world.nadir_pairs import NadirPairs, render_nadir_pairs
from geodtr.training.world.regions import choose_positions, find_region
from geodtr.training.world.render import Rendering, render
from geodtr.training.world.terrain import World
from geodtr.training.world.workers import checked_workers, run_jobs

HEIGHTS = range(16, 1025)
WIDTHS = range(32, 4097)
View = Literal["ground", "nadir"]

# Panorama pixels per job: smaller jobs are mostly overhead, larger ones exceed the caches and delay an interruption.
_JOB_PIXELS = 8 * 48 * 192
_FRAMES_PER_JOB = 16


@dataclass(frozen=True, slots=True)
class WorldSet:
    """What to render. Raises ConfigError for values out of range; `write_world` checks the region's capacity."""

    pairs: int
    height: int = 48
    """Rows of the panorama; aerial tiles are 2 * height pixels square, 60 m wide."""
    width: int = 192
    """Columns of the panorama, a full turn: at least twice its rows."""
    region: str = "valley"
    """A name in regions.REGIONS."""
    seed: int = 0
    """Seed of the map. Regions with the same seed and style are in one world: train in one, test in another."""
    view: View = "ground"
    """"nadir": instead of a panorama on a road, a frame that looks down anywhere, cropped like a tile, of `height` x
    `height` pixels, as the tile; `width` is the same.
    """

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ConfigError(f"pairs is {self.pairs}; it must be at least 1.")
        if self.height not in HEIGHTS:
            raise ConfigError(f"height is {self.height}; allowed are {HEIGHTS[0]} to {HEIGHTS[-1]} rows.")
        if self.view == "nadir" and self.width != self.height:
            raise ConfigError(f"The size is {self.height}x{self.width}; nadir frames are cropped to squares: 64x64.")
        if self.view == "ground" and (self.width not in WIDTHS or self.width < 2 * self.height):
            raise ConfigError(
                f"width is {self.width}; allowed are {max(WIDTHS[0], 2 * self.height)} to {WIDTHS[-1]} columns, "
                f"at least twice the height of {self.height}, because a panorama covers at most 360 by 180 degrees."
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; allowed are whole numbers from 0.")
        find_region(self.region)


@dataclass(frozen=True, slots=True)
class _Job:
    """Consecutive pairs for one process to render and write."""

    folder: Path
    world_set: WorldSet
    first: int
    positions: Positions
    """[B, 2] world metres, of pairs first, first + 1, ..."""


def write_world(out: Path, world_set: WorldSet, *, workers: int | None = None, track: Track = untracked) -> Path:
    """Render and write a `pairs:` data set into folder `out`; return the path of out/pairs.csv.

    Images are ground/000000.png, aerial/000000.png and so on. `lat` and `lon` are the panorama's. `heading` is the
    direction of the panorama's centre column, in degrees clockwise from north; column 0 looks about south. The tile is
    north up and centred near the same point. A nadir frame is north up but for an error, which is its `heading`;
    `lat` and `lon` are of what its middle shows. A smaller set holds the first pairs of a larger one. A failed or
    interrupted call leaves no files.

    Parameters
    ----------
    workers
        Number of processes, by default one per core. Does not change the result.
    track
        Reports progress in pairs.

    Raises
    ------
    OutputExists
        `out` is not empty.
    ConfigError
        The region has no room for so many pairs.
    """
    workers = checked_workers(workers)
    region = find_region(world_set.region)
    with new_folder(out) as folder:
        nadir = world_set.view == "nadir"
        positions = choose_positions(World(world_set.seed, region.style), region, world_set.pairs, on_roads=not nadir)
        (folder / "ground").mkdir()
        (folder / "aerial").mkdir()
        step = _FRAMES_PER_JOB if nadir else max(1, _JOB_PIXELS // (world_set.height * world_set.width))
        starts = range(0, world_set.pairs, step)
        jobs = [_Job(folder, world_set, start, positions[start : start + step]) for start in starts]
        with closing(run_jobs(_render_and_write, jobs, min(workers, len(jobs)))) as done:
            each = (heading for headings in done for heading in headings)
            headings = list(track(each, "Rendering pairs", world_set.pairs))
        coordinates = region.coordinates(positions).tolist()
        write_pairs(
            folder,
            (
                (_image("ground", index), _image("aerial", index), lat, lon, heading)
                for index, ((lat, lon), heading) in enumerate(zip(coordinates, headings, strict=True))
            ),
        )
    return out / FILE_NAME


def _render_and_write(job: _Job) -> list[float]:
    """Render a job's pairs and write their images; return their headings in degrees."""
    world_set, region = job.world_set, find_region(job.world_set.region)
    indices = range(job.first, job.first + len(job.positions))
    generators = [
        np.random.default_rng(np.random.SeedSequence(world_set.seed, spawn_key=(region.number, index)))
        for index in indices
    ]
    world = World(world_set.seed, region.style)
    pairs: Rendering | NadirPairs
    if world_set.view == "nadir":
        pairs = render_nadir_pairs(world, job.positions, generators, side=world_set.height)
    else:
        pairs = render(world, job.positions, generators, height=world_set.height, width=world_set.width)
    for index, ground, aerial in zip(indices, pairs.ground, pairs.aerial, strict=True):
        Image.fromarray(ground).save(job.folder / _image("ground", index))
        Image.fromarray(aerial).save(job.folder / _image("aerial", index))
    # Rounded as in the CSV file, so that 359.999 does not become 360.
    return [round(heading, 2) % 360.0 for heading in pairs.heading.tolist()]


def _image(branch: Branch, index: int) -> str:
    """The path of an image relative to the data set's folder."""
    return f"{branch}/{index:06d}.png"
