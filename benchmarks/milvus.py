"""Compare a gallery in Milvus with the same gallery in a folder.

python benchmarks/milvus.py milvus://HOST:PORT/bench [--tiles 20000] [--size 512]    collections bench_flat, bench_hnsw
python benchmarks/milvus.py --file WORK                                              Milvus Lite, in the folder WORK

A server builds its graph after the gallery is written. Run the same command again later to measure the existing
collections again.

Prints the time of one search for 10 tiles, batch sizes 1 and 64, as a multiple of the folder's (interleaved; median,
lowest and highest), and the recall of the 10 nearest tiles for queries halfway between tiles (as `gallery verify`
measures it) and for noisy copies of tiles. Descriptors are generated from 48 directions with noise; real ones differ.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from geodtr import open_gallery
from geodtr.cli.console import track
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.build import begin_gallery
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy
from geodtr.runtime.gallery.registry import holds_gallery, verify_gallery
from geodtr.runtime.names import Index
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

_MADE_BY = MadeBy(embedding_id="0" * 16, precision="fp32", backend="benchmark 1")
_DIRECTIONS, _NOISE, _TOP, _BLOCK = 48, 0.3, 10, 2000


def unit(rows: np.ndarray) -> Descriptors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def fill(place: str, descriptors: Descriptors, index: Index) -> None:
    """Write a gallery of `descriptors`, unless one exists."""
    if holds_gallery(place):
        return
    manifest = GalleryManifest(
        descriptor_size=descriptors.shape[1], storage="float32", index=index, source="generated", made_by=_MADE_BY
    )
    with begin_gallery(place, manifest) as writer:
        starts = range(0, len(descriptors), _BLOCK)
        for start in track(starts, f"Filling {place}", len(starts)):
            part = descriptors[start : start + _BLOCK]
            writer.add([Tile(f"{start + row:07}", "generated") for row in range(len(part))], part)
        writer.finish()


def seconds(gallery: Gallery, queries: Descriptors) -> float:
    began = time.perf_counter()
    gallery.search(queries, _TOP)
    return time.perf_counter() - began


def recall(gallery: Gallery, queries: Descriptors, descriptors: Descriptors) -> float:
    """The recall of the exact nearest tiles, compared by score, so that ties count."""
    exact = np.partition(queries @ descriptors.T, -_TOP, axis=1)[:, -_TOP]
    scores = gallery.search(queries, _TOP).scores
    return float((scores >= exact[:, None] - 1e-5).sum() / (_TOP * len(queries)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", nargs="?")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if (options.server is None) == (options.file is None):
        parser.error("Give either a server or --file WORK.")
    random = np.random.default_rng(0)
    directions = random.normal(size=(_DIRECTIONS, options.size))

    def generate(count: int) -> Descriptors:
        return unit(random.normal(size=(count, _DIRECTIONS)) @ directions + random.normal(size=(count, options.size)))

    descriptors = generate(options.tiles)
    noisy = unit(descriptors[:200] + _NOISE * generate(200))
    with tempfile.TemporaryDirectory(dir=options.file) as work:
        fill(f"{work}/folder", descriptors, "flat")
        with open_gallery(f"{work}/folder") as folder:
            for index in ("flat", "hnsw"):
                place = f"{options.server}_{index}" if options.server else f"{options.file}/bench_{index}.db"
                fill(place, descriptors, "flat" if index == "flat" else "hnsw")
                with open_gallery(place) as gallery:
                    print(f"{gallery.info.index}, {options.tiles:,} x {options.size}")
                    for batch in (1, 64):
                        queries = noisy[:batch]
                        seconds(folder, queries), seconds(gallery, queries)
                        rounds = [(seconds(folder, queries), seconds(gallery, queries)) for _ in range(options.rounds)]
                        times = sorted(milvus / own for own, milvus in rounds)
                        print(
                            f"  batch {batch}: folder {1e3 * median(own for own, _ in rounds):.1f} ms, Milvus "
                            f"{median(times):.2f} x ({times[0]:.2f} to {times[-1]:.2f})"
                        )
                    print(f"  recall of noisy queries: {recall(gallery, noisy, descriptors):.2%}")
                verified = verify_gallery(place).recall
                assert verified is not None
                print(f"  recall between tiles:    {verified.found:.2%}")


if __name__ == "__main__":
    main()
