"""A gallery of a whole country.

python benchmarks/country.py FOLDER                                     in one folder
python benchmarks/country.py FOLDER --milvus milvus://HOST:PORT/NAME    the same references, copied to Milvus as float32

Builds a gallery of generated descriptors, int8 with their float32 rows, whose tiles lie 187 m apart in rows from west
to east; FOLDER is kept, and used again where it is complete. Ten million references of 256 numbers need 16 GB of disk.
Then each figure is measured in a process of its own: opening, a search within 5 km, a search without a prior, and in a
folder the second once more with files that are not in the page cache. A copy that was stopped goes on.

Memory is what the process holds at most, as the system counts it (VmHWM): with libraries, and with pages of mapped
files, without a server. Descriptors as in benchmarks/search.py: mixtures of 64 directions and an individual one. A
query is a reference rotated by 45 degrees. Each answer is compared with the one that NumPy finds on float32 rows.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from search import QUERY_COSINE, Directions, unit

from geodtr.cli.console import track
from geodtr.runtime.gallery.build import begin_gallery
from geodtr.runtime.gallery.folder.reader import FolderGallery, open_folder
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy
from geodtr.runtime.gallery.registry import holds_gallery, open_gallery
from geodtr.runtime.geodesy import Near, moved
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

SIZE, SPACING, TOP = 256, 187.0, 10
CORNER = (47.3, 5.9)
BLOCK = 1 << 16
RADIUS = 5_000.0
MODES = {"open": "open", "near": f"within {RADIUS / 1000:g} km", "all": "without a prior"}
COLD = "cold"
"""Within the radius of a prior, in files that are not in the page cache."""
COPIED = 1 << 13
CHECKED = 1 << 18
"""Rows that are multiplied at once to check a search."""


@dataclass(frozen=True, slots=True)
class Build:
    """Seconds for so many references and bytes, `cpu_s` of the processor, and for as many bytes written plainly and
    synced.
    """

    references: int
    bytes: int
    seconds: float
    cpu_s: float
    written_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds: of the first call, median and range of the later ones; `held` bytes at most. `found` of `TOP`
    nearest references of each query are those that float32 finds; None where there was no search.
    """

    what: str
    first: float
    later: float
    lowest: float
    highest: float
    held: int
    found: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--references", type=int, default=10_000_000)
    parser.add_argument("--milvus", help="Measure a copy in Milvus instead.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=[*MODES, COLD], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        place = options.milvus or options.folder
        print(json.dumps(asdict(measure(options.folder, place, options.measure, options.rounds))))
        return
    built = None if complete(options.folder, options.references) else build(options.folder, options.references)
    if options.milvus:
        copy(options.folder, options.milvus)
    results = [measured_apart(options, mode) for mode in (*MODES, *([] if options.milvus else [COLD]))]
    if options.json:
        print(json.dumps({"build": built and asdict(built), "results": [asdict(result) for result in results]}))
        return
    if built:
        print(
            f"Built {built.references:,} references, {built.bytes / 1e9:.1f} GB, in {built.seconds:.0f} s, "
            f"{built.cpu_s:.1f} s of the processor; to write as many bytes takes {built.written_s:.0f} s."
        )
    for result in results:
        recalled = "" if result.found is None else f"; recall@{TOP} {result.found:.3f}"
        print(
            f"{result.what}: first {result.first:,.1f} ms, then {result.later:,.1f} ms ({result.lowest:,.1f} to "
            f"{result.highest:,.1f}); at most {result.held / 1e9:.2f} GB{recalled}"
        )


def complete(folder: Path, references: int) -> bool:
    if not folder.exists():
        return False
    with open_folder(folder) as gallery:
        if len(gallery) != references or not gallery.info.finished:
            sys.exit(f"{folder} is another gallery: delete it, or name another folder.")
    return True


def build(folder: Path, references: int) -> Build:
    generator = Directions(SIZE, 64, None, 0)
    maker = MadeBy(embedding_id="0" * 64, precision="fp32", backend="generated")
    manifest = GalleryManifest(descriptor_size=SIZE, storage="int8", source="generated", made_by=maker)
    seconds = cpu_s = 0.0
    with FolderWriter.create(folder, manifest) as writer:
        starts = range(0, references, BLOCK)
        for start in track(starts, f"Building {references:,} references", len(starts)):
            rows = generator.rows(min(BLOCK, references - start))
            tiles = tiles_from(start, len(rows), references)
            began, cpu = time.perf_counter(), time.process_time()
            writer.add(tiles, rows)
            seconds, cpu_s = seconds + time.perf_counter() - began, cpu_s + time.process_time() - cpu
        began = time.perf_counter()
        writer.finish()
    seconds += time.perf_counter() - began
    total = sum(path.stat().st_size for path in folder.iterdir())
    return Build(references, total, seconds, cpu_s, write_plainly(folder.with_name(folder.name + ".bytes"), total))


def copy(folder: Path, place: str) -> None:
    """Fill the collection with the references of the folder that it lacks."""
    with open_folder(folder) as gallery:
        if holds_gallery(place):
            with open_gallery(place) as held:
                if held.info.finished:
                    return
        began, cpu = time.perf_counter(), time.process_time()
        with begin_gallery(place, msgspec.structs.replace(gallery.manifest, storage="float32")) as writer:
            before = len(writer)
            # Blocks are added one after the other, so that a stopped copy lacks its last ones.
            starts = range(before // COPIED * COPIED, len(gallery), COPIED)
            for start in track(starts, f"Copying to {place}", len(starts)):
                rows = np.arange(start, min(start + COPIED, len(gallery)))
                tiles = gallery.tiles(rows.tolist())
                lacking = writer.missing(tiles) if start < before else tiles
                writer.add(lacking, gallery.descriptors(rows[len(tiles) - len(lacking) :]))
            writer.finish()
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        print(
            f"Copied {len(gallery) - before:,} references in {seconds:.0f} s, {cpu_s:.0f} s of the processor.",
            flush=True,
        )


def tiles_from(start: int, count: int, references: int) -> list[Tile]:
    wide = max(1, round(references**0.5))
    north, east = np.divmod(np.arange(start, start + count), wide)
    lat, _ = moved(*CORNER, 0.0, north * SPACING)
    _, lon = moved(lat, CORNER[1], east * SPACING, 0.0)
    return [
        Tile(f"country/{number:08d}", "country.tif", lat, lon, 0.0, 0.3, {})
        for number, (lat, lon) in enumerate(zip(lat.tolist(), lon.tolist(), strict=True), start)
    ]


def write_plainly(path: Path, total: int) -> float:
    """Seconds to write and sync `total` bytes."""
    block = os.urandom(1 << 24)
    began = time.perf_counter()
    try:
        with path.open("wb") as file:
            for left in range(total, 0, -len(block)):
                file.write(block[:left])
            file.flush()
            os.fsync(file.fileno())
        return time.perf_counter() - began
    finally:
        path.unlink(missing_ok=True)


def measured_apart(options: argparse.Namespace, mode: str) -> Measured:
    command = [sys.executable, __file__, str(options.folder), "--measure", mode, "--rounds", str(options.rounds)]
    command += ["--milvus", options.milvus] if options.milvus else []
    return Measured(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def measure(folder: Path, place: Path | str, mode: str, rounds: int) -> Measured:
    """Search the gallery at `place`, whose references are the folder's."""
    if mode == "open":
        return figures(MODES[mode], list(opened(place, rounds)), most_held(), None)
    if mode == COLD:
        forget(folder)
        within = measure(folder, place, "near", rounds)
        return replace(within, what=f"{within.what}, out of the page cache")
    with open_folder(folder) as gallery, open_gallery(place) as searched:
        targets = np.random.default_rng(1).integers(0, len(gallery), rounds)
        others = Directions(SIZE, 64, None, 2).rows(rounds)
        queries = unit(QUERY_COSINE * gallery.descriptors(targets) + (1 - QUERY_COSINE**2) ** 0.5 * others)
        priors = [
            Near(tile.lat or 0.0, tile.lon or 0.0, RADIUS) if mode == "near" else None
            for tile in gallery.tiles(targets.tolist())
        ]
        seconds, answers = list[float](), list[list[int]]()
        for query, prior in zip(queries, priors, strict=True):
            began = time.perf_counter()
            hits = searched.search(query[None], TOP, prior).rows[0]
            seconds.append(time.perf_counter() - began)
            answers.append([int(tile.id.rpartition("/")[2]) for tile in searched.tiles(hits.tolist())])
        held = most_held()
        return figures(MODES[mode], seconds, held, recall(gallery, queries, priors, answers))


def forget(folder: Path) -> None:
    """Let the system drop the files' pages, which no process may have mapped. Their contents are on the disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opened(place: Path | str, rounds: int) -> Iterator[float]:
    for _ in range(rounds):
        began = time.perf_counter()
        open_gallery(place).close()
        yield time.perf_counter() - began


def figures(what: str, seconds: list[float], held: int, found: float | None) -> Measured:
    first, *later = (1000 * each for each in seconds)
    return Measured(what, first, median(later), min(later), max(later), held, found)


def most_held() -> int:
    """Bytes in memory at most so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def recall(
    gallery: FolderGallery, queries: Descriptors, priors: Sequence[Near | None], answers: Sequence[Sequence[int]]
) -> float:
    """The share of each query's TOP nearest, by float32 rows that NumPy multiplies, among its answers."""
    best = np.full((len(queries), TOP), -np.inf, np.float32)
    rows = np.full((len(queries), TOP), -1)
    for start in range(0, len(gallery), CHECKED):
        block = np.arange(start, min(start + CHECKED, len(gallery)))
        scores = queries @ gallery.descriptors(block).T
        for number, prior in enumerate(priors):
            if prior is not None:
                scores[number, ~prior.holds(gallery.lat[block], gallery.lon[block])] = -np.inf
        both = np.concatenate([best, scores], axis=1)
        order = np.argsort(-both, axis=1)[:, :TOP]
        of = np.concatenate([rows, np.broadcast_to(block, scores.shape)], axis=1)
        best, rows = np.take_along_axis(both, order, 1), np.take_along_axis(of, order, 1)
    return float(np.mean([np.isin(right, found).mean() for right, found in zip(rows, answers, strict=True)]))


if __name__ == "__main__":
    main()
