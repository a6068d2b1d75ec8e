"""The processes of the durability tests: one changes a gallery until it is killed, others read it."""

import random
from collections.abc import Iterable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from tiny_gallery import descriptors_of

from geodtr.runtime.gallery.folder.reader import FolderGallery, open_folder
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.sources.tile import Tile

BATCH = 4
"""Tiles are added and removed in batches of this size: a reader must never see part of one."""


def batch_ids(batch: int) -> list[str]:
    return [f"{batch:06}-{n}" for n in range(BATCH)]


def tiles_of_batch(batch: int) -> list[Tile]:
    return [Tile(name, f"{name}.png", 48.0, 8.0, more={"batch": batch}) for name in batch_ids(batch)]


def write_until_killed(path: Path, held: Iterable[int], first: int, seed: int, reports: Connection) -> None:
    """Add, remove and compact at random; report each operation before it starts and after it returns."""
    choose, batches, next_batch = random.Random(seed), sorted(held), first
    with FolderWriter(path) as writer:
        reports.send(("opened", 0))
        while True:
            what = choose.choices(("add", "remove", "compact"), (6, 3, 1))[0]
            if what == "add":
                reports.send(("add", next_batch))
                writer.add(tiles_of_batch(next_batch), descriptors_of(batch_ids(next_batch)))
                batches.append(next_batch)
                next_batch += 1
            elif what == "remove" and batches:
                gone = batches.pop(choose.randrange(len(batches)))
                reports.send(("remove", gone))
                writer.remove([f"{gone:06}-*"])
            else:
                reports.send(("compact", 0))
                writer.compact()
            reports.send(("done", 0))


def check_snapshot(gallery: FolderGallery) -> set[int]:
    """Check that a reader sees whole batches with the correct descriptors; return the batches."""
    ids = [tile.id for tile in gallery.all_tiles()]
    batches = {int(name[:6]) for name in ids}
    assert sorted(ids) == [name for batch in sorted(batches) for name in batch_ids(batch)], "part of a batch"
    np.testing.assert_array_equal(gallery.descriptors(np.arange(len(ids))), descriptors_of(ids))
    if ids:
        # The search reads the compressed rows, which must belong to the same tiles.
        hits = gallery.search(descriptors_of(ids[:1]), 1)
        assert hits.rows.tolist() == [[0]]
    return batches


def read_until(path: Path, stop: Event, reports: Connection) -> None:
    """Check new snapshots until `stop`, four at least, and the first one again; report the error, or None."""
    try:
        rounds = 0
        with open_folder(path) as first:
            seen = check_snapshot(first)
            while rounds < 4 or not stop.is_set():
                with open_folder(path) as gallery:
                    check_snapshot(gallery)
                rounds += 1
                assert check_snapshot(first) == seen, "an open gallery changed"
        reports.send(None)
    except BaseException as error:
        reports.send(repr(error))
        raise
