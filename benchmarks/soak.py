"""Soak test of the runtime, for leaks of memory, files and threads: python benchmarks/soak.py [--rounds N] [--json]

Each round does what a vehicle's process repeats: opens a localizer and localises panoramas as files, as pixels and with
unknown headings, embeds a batch, searches with and without a prior, tracks a few rows of odometry, changes a gallery
(adds tiles, removes them, compacts), verifies it, and closes everything. Bundle and gallery are the tests' untrained
ones, so nearly all time is spent in our code, not in the network. Memory is sampled after each round. The growth is the
slope of a least-squares line over the last three quarters, in bytes per round. At one image per second, 100 rounds are
an hour.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from tiny_world import TinyWorld, make_world

from geodtr import Localizer, open_bundle, open_gallery
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.geodesy import Near
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.tracking.odometry import follow_odometry
from geodtr.runtime.tracking.run import track_odometry

IMAGES = 9
ODOMETRY = "time_s,speed_m_s,yaw_rate_deg_s,image"


@dataclass(frozen=True, slots=True)
class Soak:
    """Results. `images`: total number localised or embedded. `memory`, `files`: resident bytes and open file
    descriptors after each round. `threads`: at the start and at the end. `slope`: bytes per round.
    """

    rounds: int
    images: int
    seconds: float
    memory: list[int]
    files: list[int]
    threads: tuple[int, int]
    slope: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), options.rounds)
    print(json.dumps(asdict(result)) if options.json else text_of(result))


def soak(folder: Path, rounds: int) -> Soak:
    world = make_world(folder)
    images = [world.photograph(folder / "images" / f"{row}.png", row, heading=90) for row in range(IMAGES)]
    steps: tuple[Callable[[], int], ...] = (
        lambda: localise(world, images),
        lambda: embed(world, images),
        lambda: search(world),
        lambda: track(world, images),
        lambda: change(world),
    )
    memory, files = list[int](), list[int]()
    threads, done, start = count("task"), 0, time.perf_counter()
    for _ in range(rounds):
        done += sum(step() for step in steps)
        gc.collect()
        memory.append(resident())
        files.append(count("fd"))
    later = memory[rounds // 4 :]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0])
    return Soak(rounds, done, time.perf_counter() - start, memory, files, (threads, count("task")), slope)


def localise(world: TinyWorld, images: list[Path]) -> int:
    with Localizer.open(world.bundle, world.gallery) as localizer:
        list(localizer.locate_frames(images))
        for row in range(IMAGES):
            localizer.locate(world.panorama(row), near=Near(float(world.lat[row]), float(world.lon[row]), 200))
    with Localizer.open(world.bundle, world.gallery, headings=16) as localizer:
        localizer.locate(world.panorama(5, 90))
    return 2 * IMAGES + 1


def embed(world: TinyWorld, images: list[Path]) -> int:
    return len(embed_files(open_bundle(world.bundle).embedder("ground"), images, batch_size=4))


def search(world: TinyWorld) -> int:
    with open_gallery(world.gallery) as gallery:
        queries = np.eye(16, gallery.manifest.descriptor_size, dtype=np.float32)
        gallery.search(queries, 5)
        gallery.search(queries[:1], 5, Near(float(world.lat[0]), float(world.lon[0]), 100))
        list(gallery.all_tiles())
    return 0


def track(world: TinyWorld, images: list[Path]) -> int:
    rows = [f"{second},50,0,{image}" for second, image in enumerate(images)]
    with Localizer.open(world.bundle, world.gallery, headings=16) as localizer:
        return len(list(track_odometry(localizer, follow_odometry([ODOMETRY, *rows], "rows", Path()))))


def change(world: TinyWorld) -> int:
    """Add tiles, remove them, compact and verify, which restores the gallery."""
    with FolderWriter(world.gallery) as writer:
        rows = np.eye(8, writer.manifest.descriptor_size, dtype=np.float32)
        writer.add([Tile(f"new/{number}", "new.png", 0.0, 0.0) for number in range(len(rows))], rows)
        writer.remove(["new/*"])
        writer.compact()
    if verify(world.gallery):
        raise RuntimeError("the gallery is damaged")
    return 0


def resident() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024


def count(what: str) -> int:
    return sum(1 for _ in Path(f"/proc/self/{what}").iterdir())


def text_of(result: Soak) -> str:
    lines = ["round  resident MB  open files"]
    for number in sorted({0, result.rounds - 1, *range(0, result.rounds, max(1, result.rounds // 8))}):
        lines.append(f"{number + 1:5d}  {result.memory[number] / 1e6:11.1f}  {result.files[number]:10d}")
    lines.append(
        f"{result.rounds} rounds, {result.images} images in {result.seconds:.0f} s; threads {result.threads[0]} at the "
        f"start, {result.threads[1]} at the end"
    )
    lines.append(
        f"slope: {result.slope / 1e3:+.1f} kB per round, {result.slope * result.rounds / 1e6:+.1f} MB in total"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
