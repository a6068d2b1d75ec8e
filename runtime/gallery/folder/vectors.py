"""The files that hold a gallery's descriptors: rows of one size, appended and never changed, mapped to be read.

descriptors-G.float32                   the rows as they were embedded, float32 [slots, D]
descriptors-G.float16 or .int8          the same compressed, if the gallery's storage is compressed
descriptors-G.scales                    the scale and error of each compressed row, float32 [slots, 2]

G is the generation: compacting writes the next one. The caller knows how many rows are in use: rows after them are left
from an interrupted write. Numbers are little-endian.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, MADV_DONTNEED, MADV_WILLNEED, PAGESIZE, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import GalleryError
from geodtr.runtime.files import check_regular, open_regular, sync, write_bytes
from geodtr.runtime.gallery.location import command
from geodtr.runtime.names import Storage
from geodtr.runtime.search.quantize import Compressed, compress
from geodtr.runtime.spec import Descriptors

_KEPT = 1 << 29
"""Bytes of a file's pages in memory before they are let go."""
_AROUND = 1 << 21
"""Bytes that the system maps at most around one that is touched: a large folio of Linux."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """Descriptor files in memory maps, which cost no memory until they are touched: `exact` float32 [slots, D]."""

    exact: Descriptors
    compressed: Compressed | None


@dataclass(frozen=True, slots=True)
class _File:
    """One of the files: rows of `width` numbers of `dtype`."""

    path: Path
    dtype: np.dtype[Any]
    width: int

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class DescriptorFiles:
    """One generation's files in `folder`, of descriptors [slots, `size`]."""

    folder: Path
    generation: int
    size: int
    storage: Storage

    @property
    def paths(self) -> list[Path]:
        return [file.path for file in self._files()]

    def create(self) -> None:
        """Create the files, empty. Raises GalleryError where one exists."""
        for path in self.paths:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            except FileExistsError:
                raise GalleryError(f"{path} is in the way: no writer made it. Move it elsewhere.") from None
            sync(path)
        sync(self.folder)

    def map(self, slots: int) -> Mapped:
        """The first `slots` rows. Raises FileNotFoundError, or GalleryError naming a file that is shorter."""
        exact, *compressed = (_map(file, slots) for file in self._files())
        if not compressed:
            return Mapped(exact, None)
        values, of_rows = compressed
        # Contiguous, because every search reads all of them.
        scales, errors = np.ascontiguousarray(of_rows[:].T)
        return Mapped(exact, Compressed(values, scales, errors))

    def write(self, slot: int, rows: Descriptors) -> None:
        """Write float32 rows [N, D] from row `slot` on; they are durable after `sync`."""
        parts: list[NDArray[Any]] = [rows]
        if self.storage != "float32":
            packed = compress(rows, self.storage)
            parts += [packed.values, np.stack([packed.scales, packed.errors], axis=1)]
        for file, part in zip(self._files(), parts, strict=True):
            with os.fdopen(open_regular(file.path, os.O_RDWR, GalleryError), "r+b", buffering=0) as stream:
                stream.seek(slot * file.row_bytes)
                content = memoryview(np.ascontiguousarray(part, file.dtype).data).cast("B")
                while content:
                    content = content[stream.write(content) :]

    def sync(self) -> None:
        for path in self.paths:
            sync(path)

    def check(self, slots: int) -> None:
        """Raise FileNotFoundError, or GalleryError naming a file that holds less than `slots` rows, or is none."""
        for file in self._files():
            _check_length(file, slots)

    def cut(self, slots: int) -> None:
        """Drop what lies behind the first `slots` rows. Raises as `check`."""
        self.check(slots)
        for file in self._files():
            os.truncate(file.path, slots * file.row_bytes)

    def remove(self) -> None:
        """Unlink the files; who has mapped them keeps them."""
        for path in self.paths:
            path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Unlink them. What else is in the folder, no writer can have left."""
        for path in self.leftovers():
            path.unlink()

    def set_leftovers_aside(self) -> None:
        """Rename them, so that a person can look at them."""
        for path in self.leftovers():
            path.rename(path.with_name(f"set-aside-{path.name}"))

    def set_rest_aside(self, slots: int) -> None:
        """Copy the float32 rows behind the first `slots`, which the next ones will replace."""
        exact = next(self._files())
        with os.fdopen(open_regular(exact.path, os.O_RDONLY, GalleryError), "rb") as file:
            file.seek(slots * exact.row_bytes)
            if rest := file.read():
                write_bytes(self.folder / f"set-aside-{exact.path.name}-from-row-{slots}", rest)

    def leftovers(self) -> list[Path]:
        """The files of the generations beside this one, which a compaction that was cut short left."""
        beside = [replace(self, generation=self.generation + step) for step in (-1, 1)]
        return [path for files in beside for path in files.paths if check_regular(path, GalleryError)]

    def rows_held(self) -> dict[Path, int]:
        """How many whole rows each file holds; 0 where it is missing."""
        return {file.path: _size(file.path) // file.row_bytes for file in self._files()}

    def _files(self) -> Iterator[_File]:
        def named(suffix: str) -> Path:
            return self.folder / f"descriptors-{self.generation}.{suffix}"

        yield _File(named("float32"), np.dtype("<f4"), self.size)
        if self.storage != "float32":
            yield _File(named(self.storage), np.dtype("<f2" if self.storage == "float16" else "i1"), self.size)
            yield _File(named("scales"), np.dtype("<f4"), 2)


def _map(file: _File, slots: int) -> NDArray[Any]:
    _check_length(file, slots)
    if not slots:
        return np.empty((0, file.width), file.dtype)  # an empty file cannot be mapped
    descriptor = open_regular(file.path, os.O_RDONLY, GalleryError)
    try:
        mapped = mmap(descriptor, slots * file.row_bytes, access=ACCESS_READ)
    except ValueError:  # cut between the two looks
        raise _cut_short(file.path, os.fstat(descriptor).st_size, slots * file.row_bytes) from None
    finally:
        os.close(descriptor)
    rows = np.frombuffer(mapped, file.dtype).reshape(slots, file.width).view(_MappedRows)
    rows.file, rows.mapped = file.path, mapped
    return rows


class _MappedRows(np.ndarray[Any, np.dtype[Any]]):
    """Rows of a memory map: to touch those that another process has cut off meanwhile would end this one (SIGBUS).

    So that they end in an error, the file's length is asked whenever rows are taken, a block at a time. Pages that were
    touched count as this process's memory, though the system can take them back: of a large file most are let go.
    """

    file: Path
    mapped: mmap
    taken = 0
    """Bytes that may have been touched since pages were let go."""

    def __getitem__(self, which: Any) -> Any:
        if self.mapped.size() < len(self.mapped):
            raise _cut_short(self.file, self.mapped.size(), len(self.mapped))
        if len(self.mapped) > _KEPT and isinstance(which, np.ndarray) and which.size:
            self._ask_for(which)
        rows = self.view(np.ndarray)[which]
        self.taken += len(rows) * (self.strides[0] if isinstance(which, slice) else _AROUND)
        if min(self.taken, len(self.mapped)) > _KEPT:
            self.mapped.madvise(MADV_DONTNEED)  # another thread that reads them has them mapped again
            self.taken = 0
        return rows

    def _ask_for(self, rows: NDArray[np.integer[Any]]) -> None:
        """Have the system read the pages of scattered rows at once; touched in turn, each waits for the disk."""
        pages = np.unique(rows * self.strides[0] // PAGESIZE)
        for run in np.split(pages, np.flatnonzero(np.diff(pages) > 1) + 1):
            self.mapped.madvise(MADV_WILLNEED, int(run[0]) * PAGESIZE, len(run) * PAGESIZE)


def _check_length(file: _File, slots: int) -> None:
    check_regular(file.path, GalleryError)
    held, needed = file.path.stat().st_size, slots * file.row_bytes
    if held < needed:
        raise _cut_short(file.path, held, needed)


def _cut_short(path: Path, held: int, needed: int) -> GalleryError:
    return GalleryError(
        f"{path} is cut short: it has {held:,} bytes where {needed:,} are needed. Copy the gallery again, or see what "
        f"is left: {command('verify', path.parent)}"
    )


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
