"""Whether a gallery folder is what was written: every row of it against its checksum, every file against its length."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.files import check_regular
from geodtr.runtime.gallery.base import Fault
from geodtr.runtime.gallery.folder.opening import KEPT_LOG, open_snapshot
from geodtr.runtime.gallery.folder.table import (
    COLUMNS,
    DAMAGES,
    FILE_NAME,
    check_manifest,
    check_slots,
    count_references,
    integrity_faults,
    read_state,
)
from geodtr.runtime.gallery.folder.vectors import DescriptorFiles, Mapped
from geodtr.runtime.gallery.manifest import GalleryManifest, read_gallery_manifest
from geodtr.runtime.gallery.row import checksums
from geodtr.runtime.names import Storage
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.search.quantize import Compressed, compress
from geodtr.runtime.search.topk import Rows

_ROWS_AT_ONCE = 4096


def verify(path: Path, *, track: Track = untracked) -> tuple[Fault, ...]:
    """Read all of the gallery `path` and name every fault; none: it is as it was written.

    Raises GalleryError when it is no gallery at all.
    """
    manifest = read_gallery_manifest(path)
    with ExitStack() as closes:
        return tuple(_all_that_can_be_read(_faults(path, manifest, closes, track)))


def _all_that_can_be_read(faults: Iterator[Fault]) -> Iterator[Fault]:
    """The faults, and as the last of them what keeps others from being found."""
    try:
        yield from faults
    except GalleryError as error:
        yield Fault(None, str(error))
    except DAMAGES as error:
        yield Fault(None, f"{FILE_NAME} cannot be read: {error}")


def _faults(path: Path, manifest: GalleryManifest, closes: ExitStack, track: Track) -> Iterator[Fault]:
    database = open_snapshot(path, closes)
    # A text that is no UTF-8 any more is a row's fault, to be named like any other.
    database.text_factory = lambda text: text.decode(errors="replace")
    for log in sorted(path.glob(f"{KEPT_LOG}*")):
        yield Fault(
            None, f"{log.name}: the log of a killed writer was damaged; what it had confirmed last may be missing"
        )
    for text in integrity_faults(database):
        yield Fault(None, f"{FILE_NAME}: {text}")
    try:
        check_manifest(path, database)
    except GalleryError as error:
        yield Fault(None, str(error))
    state = read_state(database)
    files = DescriptorFiles(path, state.generation, manifest.descriptor_size, manifest.storage)
    held = files.rows_held()
    for file, rows in held.items():
        if not check_regular(file, GalleryError):
            yield Fault(None, f"{file.name} is missing")
        elif rows < state.slots:
            yield Fault(None, f"{file.name} is cut short: it holds {rows} of {state.slots} rows")
    whole = min(state.slots, *held.values())
    mapped = files.map(whole) if whole else None
    blocks = ceil(count_references(database, state.slots) / _ROWS_AT_ONCE)
    query = f"SELECT slot, checksum, {COLUMNS} FROM reference WHERE slot > ? ORDER BY slot LIMIT {_ROWS_AT_ONCE}"
    last = -1
    for _ in track(range(blocks), "Verifying", blocks):
        block = database.execute(query, (last,)).fetchall()
        yield from _block(block, mapped, manifest.storage, whole)
        last = block[-1][0] if block else last
    for slot, name in database.execute("SELECT slot, id FROM removed JOIN reference USING (slot)"):
        yield Fault(str(name), f"row {slot}: the table marks it as removed, so that no search would find it")
    check_slots(database)


def _block(rows: Sequence[tuple[Any, ...]], mapped: Mapped | None, storage: Storage, whole: int) -> Iterator[Fault]:
    """The faults of some references, (slot, checksum, *COLUMNS) each, of which `whole` slots can be read."""
    there = [row for row in rows if 0 <= row[0] < whole]
    for slot, _, name, *_rest in rows:
        if not 0 <= slot < whole:
            yield Fault(str(name), f"its descriptor, row {slot}, is not there")
    if mapped is None or not there:
        return
    slots = np.array([row[0] for row in there], np.int64)
    exact = mapped.exact[slots]
    again = None if storage == "float32" else compress(exact, storage)
    same = None if mapped.compressed is None or again is None else _same(mapped.compressed, slots, again)
    for index, (row, found) in enumerate(zip(there, checksums([row[2:] for row in there], exact), strict=True)):
        slot, expected, name, *_rest = row
        if found != expected:
            what = "its descriptor, or its row of the table, was changed after it was written"
            yield Fault(str(name), f"row {slot}: {what}")
        elif same is not None and not same[index]:
            yield Fault(str(name), f"row {slot}: its {storage} descriptor was changed; compacting writes it again")


def _same(one: Compressed, rows: Rows, other: Compressed) -> NDArray[np.bool_]:
    """Whether the `rows` of one are the same bytes as the other's, NaN and all, [N]."""
    pairs = ((one.values[rows], other.values), (one.scales[rows], other.scales), (one.errors[rows], other.errors))
    equal = [(_bytes(ours) == _bytes(theirs)).all(axis=1) for ours, theirs in pairs]
    return np.asarray(np.all(equal, axis=0), np.bool_)


def _bytes(rows: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
