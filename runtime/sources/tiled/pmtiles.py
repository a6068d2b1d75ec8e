"""PMTiles, map tiles of the web's scheme in one file without a database.

Source: PMTiles 3, https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md. Tiles are numbered along a Hilbert
curve, zoom after zoom; directories list where each run of numbers is stored.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.files import readable
from geodtr.runtime.images.decode import decode_bytes
from geodtr.runtime.sources.tile import MAX_TILES
from geodtr.runtime.sources.tiled.slippy import (
    ALL_TILES,
    MAX_BYTES,
    MapTiles,
    XyzOptions,
    check_count,
    choose_zoom,
    map_tiles,
    name_in_file,
    vector_tiles,
)

SUFFIXES = frozenset({".pmtiles"})

_HEADER = struct.Struct("<7sB11Q6B")
_LARGEST = 1 << 61
"""No number, offset or length reaches it: the sum of two fits into 64 bits."""

_NONE, _GZIP = 1, 2
_VECTOR = 1
_ZOOMS = 27
_DEEPEST = 4
"""Directories below each other; the specification asks for two."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Header:
    """What of the header is used: offsets and lengths in bytes, and how directories and tiles are compressed."""

    root: tuple[int, int]
    leaves: int
    data: int
    directory_compression: int
    tile_compression: int
    tile_type: int


def open_pmtiles(path: Path, options: XyzOptions = ALL_TILES) -> MapTiles:
    """All tiles of one zoom, as `map_tiles` gives them.

    Raises DataError when the file is damaged or holds vector tiles, several zooms to choose from, or more than
    MAX_TILES; otherwise as `map_tiles`.
    """
    if options.tms:
        raise ConfigError(f"{path} is PMTiles, whose rows always count from the north: leave --tms out.")
    header = _read_header(path)
    if header.tile_type == _VECTOR:
        raise vector_tiles(path)
    entries = list(_entries(path, header, header.root, 1, [0]))
    first, run, offset, length = (np.concatenate(column) for column in zip(*entries, strict=True))
    starts = np.cumsum([0, *(4**zoom for zoom in range(_ZOOMS))])
    zooms = [z for z in range(_ZOOMS) if ((first < starts[z + 1]) & (first + run > starts[z])).any()]
    zoom = choose_zoom(str(path), zooms, options.zoom)
    inside = (first < starts[zoom + 1]) & (first + run > starts[zoom])
    # A run may go on in the next zoom.
    begin = np.maximum(first[inside], starts[zoom]) - starts[zoom]
    run = np.minimum((first + run)[inside], starts[zoom + 1]) - starts[zoom] - begin
    check_count(path, zoom, run.sum(dtype=np.float64))
    along = np.repeat(begin - np.cumsum(run) + run, run) + np.arange(run.sum())
    x, y = _on_curve(along, zoom)
    places = np.stack([np.repeat(header.data + offset[inside], run), np.repeat(length[inside], run)], axis=1)
    order = np.lexsort((y, x))
    store = _Places(path, zoom, x[order] << zoom | y[order], places[order], header.tile_compression)
    numbers = list(zip(x[order].tolist(), y[order].tolist(), strict=True))
    return map_tiles(str(path), store, numbers, zoom, options, [])


def _read_header(path: Path) -> _Header:
    content = _read(path, 0, _HEADER.size)
    if len(content) < _HEADER.size or content[:7] != b"PMTiles" or content[7] != 3:
        raise DataError(f"{path} is not PMTiles of version 3. Get it again.")
    fields = _HEADER.unpack(content)
    root, root_length, _, _, leaves, _, data = fields[2:9]
    _, directory, tile, kind = fields[13:17]
    if max(fields[2:9]) >= _LARGEST:
        raise DataError(f"{path} names places beyond any file: corrupt. Get it again.")
    if directory not in (_NONE, _GZIP) or tile not in (0, _NONE, _GZIP):
        raise DataError(f"{path} is compressed by another way than gzip. Convert it to MBTiles: pmtiles-convert")
    return _Header((root, root_length), leaves, data, directory, tile, kind)


def _entries(
    path: Path, header: _Header, place: tuple[int, int], depth: int, count: list[int]
) -> Iterator[tuple[Numbers, Numbers, Numbers, Numbers]]:
    """The entries of the directory at `place` and of those below: first number, run, offset and length, each [N].

    `count` holds the number of entries so far, of the whole file: MAX_TILES at most.
    """
    first, run, length, offset = _directory(_unpacked(path, *place, header.directory_compression), path)
    count[0] += len(first)
    if depth > _DEEPEST or count[0] > MAX_TILES:
        raise DataError(f"{path} has directories nested deeper than {_DEEPEST}, or of more than {MAX_TILES:,} entries.")
    tiles = run > 0
    yield first[tiles], run[tiles], offset[tiles], length[tiles]
    for below in np.flatnonzero(~tiles).tolist():
        yield from _entries(path, header, (header.leaves + int(offset[below]), int(length[below])), depth + 1, count)


def _directory(content: bytes, path: Path) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """First number, run, length and offset of the entries of one directory, each [N]."""
    values = _varints(content, path)
    if len(values) < 1 or len(values) != 1 + 4 * values[0]:
        raise DataError(f"{path} has a directory of another length than it states: corrupt. Get it again.")
    steps, run, length, offset = values[1:].reshape(4, -1)
    if max(steps.sum(dtype=np.float64), length.sum(dtype=np.float64)) >= _LARGEST:
        raise DataError(f"{path} has a directory of numbers beyond all tiles: corrupt. Get it again.")
    # 0 stands for the end of the entry before.
    known = np.where(offset > 0, offset - 1, 0)
    since = np.cumsum(length) - length
    latest = np.maximum.accumulate(np.where(offset > 0, np.arange(len(offset)), 0))
    return np.cumsum(steps), run, length, known[latest] + since - since[latest]


def _varints(content: bytes, path: Path) -> Numbers:
    """All numbers of seven bits a byte, the lowest first, that `content` consists of."""
    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    sizes = ends - starts + 1
    # Eight bytes are 2^56, beyond every number and offset.
    if not len(ends) or ends[-1] != len(data) - 1 or sizes.max() > 8:
        raise DataError(f"{path} has a directory that cannot be read: corrupt. Get it again.")
    values = np.zeros(len(ends), np.int64)
    for place in range(int(sizes.max())):
        longer = sizes > place
        values[longer] |= (data[starts[longer] + place].astype(np.int64) & 0x7F) << (7 * place)
    return values


def _on_curve(along: Numbers, zoom: int) -> tuple[Numbers, Numbers]:
    """x and y, each [N], of the places so far along the Hilbert curve of a zoom."""
    x, y, rest = np.zeros_like(along), np.zeros_like(along), along.copy()
    for level in range(zoom):
        side = 1 << level
        right = rest >> 1 & 1
        down = (rest ^ right) & 1
        mirrored = (down == 0) & (right == 1)
        x[mirrored], y[mirrored] = side - 1 - x[mirrored], side - 1 - y[mirrored]
        x, y = np.where(down == 0, y, x), np.where(down == 0, x, y)
        x, y, rest = x + side * right, y + side * down, rest >> 2
    return x, y


def _read(path: Path, offset: int, length: int) -> bytes:
    """Those bytes of the file, fewer where it ends."""
    with readable(DataError, path), path.open("rb") as file:
        if offset > path.stat().st_size:  # seek raises at places beyond what a disk can hold
            return b""
        file.seek(offset)
        return file.read(length)


def _unpacked(path: Path, offset: int, length: int, compression: int) -> bytes:
    """Decompressed bytes of the file: a tile's image or a directory. Raises DataError when they are not there,
    damaged, or above MAX_BYTES.
    """
    if length > MAX_BYTES or offset >= _LARGEST:
        raise DataError(f"{path} names {length:,} bytes at {offset:,}; allowed are up to {MAX_BYTES:,}. Get it again.")
    content = _read(path, offset, length)
    try:
        if compression == _GZIP:
            unpacking = zlib.decompressobj(wbits=31)
            content = unpacking.decompress(content, MAX_BYTES)
            if not unpacking.eof:
                raise zlib.error("truncated, or too large")
        elif len(content) < length:
            raise zlib.error("truncated")
    except zlib.error as error:
        raise DataError(f"{path} cannot be read at byte {offset:,} ({error}): corrupt. Get it again.") from None
    return content


@dataclass(frozen=True, eq=False)
class _Places:
    """A TileStore over the tiles of a zoom: `keys`, x * 2^zoom + y, rising, [N]; offset and length of each, [N, 2]."""

    path: Path
    zoom: int
    keys: Numbers
    places: Numbers
    compression: int

    def name(self, x: int, y: int) -> str:
        return name_in_file(self.path, self.zoom, x, y)

    def image(self, x: int, y: int) -> Image.Image:
        offset, length = self.places[np.searchsorted(self.keys, x << self.zoom | y)].tolist()
        try:
            content = _unpacked(self.path, offset, length, self.compression)
        except DataError as error:
            raise ImageError(f"{self.name(x, y)}: {error}") from None
        return decode_bytes(content, self.name(x, y)).image
