"""Build a gallery on many machines: actors of Ray Data read and embed tiles, this process writes what they send.

    pip install '.[cpu,ray]'
    python examples/gallery_on_ray.py BUNDLE SOURCE --out GALLERY --actors 8 --address auto

SOURCE is a folder of tiles, a data set (KIND:PATH), a folder of map tiles, or a map with --tile-metres. Every machine
of the cluster sees BUNDLE and SOURCE under the same path and has geodtr-export installed; the gallery, a folder or in
Milvus, is touched by this process alone. Without --address Ray runs on this machine.

A tile's descriptor is the one that `gallery build` gives, and rows stand in the same order. What was stopped goes on
when the same command is given again. Images that cannot be read are listed and left out.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from geodtr import UserError, open_bundle
from geodtr.cli.console import track
from geodtr.runtime.embed.pipeline import BATCH_SIZE
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.errors import ImageError
from geodtr.runtime.gallery.build import begin_gallery, describe_tiles
from geodtr.runtime.gallery.manifest import GalleryManifest, made_by
from geodtr.runtime.installation import install_hint
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tile import Tile, TileSource, check_tiles
from geodtr.runtime.spec import Descriptors
from geodtr.training.data.references import reference_tiles
from geodtr.training.data.spec import is_spec, read_test_set

_TASKS_AN_ACTOR = 16
"""Into how many tasks an actor's work is cut: few cost little, many even out actors of different speed."""


@dataclass(frozen=True)
class Workers:
    """How many actors embed, and the processors and graphics cards that each asks Ray for."""

    actors: int
    cpus: int
    gpus: float


class EmbedTiles:
    """An actor: opens the bundle once, then embeds one batch of tiles a row."""

    def __init__(self, bundle: Path, source: TileSource, threads: int) -> None:
        self._embedder = open_bundle(bundle).embedder("aerial", EngineOptions(threads=threads))
        self._source = source

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The descriptors of the batch's readable tiles as float32 bytes, and the reasons for the other tiles."""
        faults = list[str]()

        def leave_out(tile: Tile, error: ImageError) -> None:
            del tile
            faults.append(str(error))

        tiles, parts = list[Tile](), list[Descriptors]()
        batch_tiles = msgspec.json.decode(row["tiles"], type=list[Tile])
        for batch, descriptors in describe_tiles(self._source, batch_tiles, self._embedder, on_bad_tile=leave_out):
            tiles += batch
            parts.append(descriptors)
        described = np.concatenate(parts).tobytes() if parts else b""
        return {"tiles": msgspec.json.encode(tiles), "descriptors": described, "faults": msgspec.json.encode(faults)}


def embed_on_ray(
    bundle: Path, source: TileSource, tiles: Sequence[Tile], workers: Workers
) -> Iterator[tuple[list[Tile], Descriptors, list[str]]]:
    """Tiles with their descriptors [N, D] and what could not be read, a batch at a time in the order of `tiles`.

    The batches equal a single process's batches: an engine may round a row differently in a batch of another size.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.execution_options.preserve_order = False, True
    size = open_bundle(bundle).manifest.engine("aerial").spec.descriptor_size
    starts = range(0, len(tiles), BATCH_SIZE)
    rows = [{"tiles": msgspec.json.encode(tiles[start : start + BATCH_SIZE])} for start in starts]
    described = ray.data.from_items(rows, override_num_blocks=min(len(rows), _TASKS_AN_ACTOR * workers.actors)).map(
        EmbedTiles,
        fn_constructor_args=(bundle, source, workers.cpus),
        compute=ray.data.ActorPoolStrategy(size=workers.actors),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    for row in track(described.iter_rows(), "Embedding batches of tiles", len(rows)):
        descriptors = np.frombuffer(row["descriptors"], np.float32).reshape(-1, size)
        yield msgspec.json.decode(row["tiles"], type=list[Tile]), descriptors, msgspec.json.decode(row["faults"])


def build(bundle: Path, source: TileSource, out: str, workers: Workers) -> None:
    """Embed what the gallery does not hold yet, and say what came of it."""
    check_tiles(source.name, source.tiles)
    manifest = open_bundle(bundle).manifest
    size = manifest.engine("aerial").spec.descriptor_size
    begun = GalleryManifest(descriptor_size=size, storage="float32", source=source.name, made_by=made_by(manifest))
    with begin_gallery(out, begun) as writer:
        missing = writer.missing(source.tiles)
        left_out = 0
        for tiles, descriptors, faults in embed_on_ray(bundle, source, missing, workers) if missing else ():
            writer.add(tiles, descriptors)
            left_out += len(faults)
            for fault in faults:
                print(f"left out: {fault}", file=sys.stderr)
        writer.finish()
        held = len(source.tiles) - len(missing)
        print(f"{out}: {len(missing) - left_out} tiles embedded, {held} were there, {left_out} left out")


def open_named(name: str, tile_metres: float | None) -> TileSource:
    """The source of this name, its paths absolute: actors run in folders of their own."""
    if is_spec(name):
        kind, _, path = name.partition(":")
        return reference_tiles(read_test_set(f"{kind}:{Path(path).absolute()}"))
    return open_source(Path(name).absolute(), None if tile_metres is None else GeoTiffOptions(tile_metres))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("source")
    parser.add_argument("--out", required=True, help="a folder, a Milvus Lite file, or milvus://HOST:PORT/COLLECTION")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=1, help="of each actor")
    parser.add_argument("--gpus", type=float, default=0, help="of each actor")
    parser.add_argument("--tile-metres", type=float, help="of a map: a tile's side on the ground")
    parser.add_argument("--address", help="of a running cluster; 'auto' finds this machine's cluster")
    options = parser.parse_args()
    # Ray prints its cluster's state line by line; errors still arrive as exceptions.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers
    try:
        import ray
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        source = open_named(options.source, options.tile_metres)
        ray.init(options.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        build(options.bundle.absolute(), source, options.out, Workers(options.actors, options.cpus, options.gpus))
    except ModuleNotFoundError as error:
        sys.exit(f"This needs {error.name}, which is not installed: {install_hint('ray')}")
    except UserError as error:
        sys.exit(str(getattr(error, "cause", error)))  # of an actor's, without its traceback


if __name__ == "__main__":
    main()
