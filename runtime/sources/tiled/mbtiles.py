"""MBTiles, map tiles of the web's scheme in one SQLite file, as QGIS and GDAL write them.

Source: MBTiles 1.3. Its `metadata` is not believed, for exports are often wrong there: the tiles decide the zooms, and
an image's bytes its format.
"""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.files.sqlite_file import ForeignFile
from geodtr.runtime.images.decode import decode_bytes
from geodtr.runtime.sources.tiled.slippy import (
    ALL_TILES,
    MAX_BYTES,
    MAX_ZOOM,
    MapTiles,
    XyzOptions,
    check_count,
    choose_zoom,
    map_tiles,
    name_in_file,
    vector_tiles,
)

SUFFIXES = frozenset({".mbtiles"})

_SECONDS = 60.0


def open_mbtiles(path: Path, options: XyzOptions = ALL_TILES) -> MapTiles:
    """All tiles of one zoom, as `map_tiles` gives them; their rows count from the south, as the format defines.

    Raises DataError when the file is damaged or holds no map tiles, vector tiles, several zooms to choose from, or more
    than MAX_TILES; otherwise as `map_tiles`.
    """
    if options.tms:
        raise ConfigError(f"{path} is MBTiles, whose rows always count from the south: leave --tms out.")
    with closing(_open(path, DataError)) as file:
        zoom = choose_zoom(str(path), list(_zooms(file)), options.zoom)
        numbers, broken = _numbers(file, path, zoom)
    store = _Rows(path, zoom)
    if not numbers:
        raise DataError(f"{path} holds no map tiles of zoom {zoom}.")
    if store.content(*numbers[0])[:2] == b"\x1f\x8b":
        raise vector_tiles(path)
    notes = [f"{broken} rows are left out: their numbers are no tile's of zoom {zoom}."] if broken else []
    return map_tiles(str(path), store, numbers, zoom, options, notes)


def _open(path: Path, error_class: type[DataError] | type[ImageError]) -> ForeignFile:
    return ForeignFile(path, error_class, largest=MAX_BYTES, seconds=_SECONDS)


def _zooms(file: ForeignFile) -> Iterator[int]:
    """By steps along the index: to count a large file's tiles takes minutes."""
    zoom = -1
    while True:
        ((found,),) = file.rows(
            "SELECT min(zoom_level) FROM tiles WHERE zoom_level > ? AND zoom_level <= ?", zoom, MAX_ZOOM
        )
        if not isinstance(found, int):
            return
        zoom = found
        yield zoom


def _numbers(file: ForeignFile, path: Path, zoom: int) -> tuple[list[tuple[int, int]], int]:
    """x and y, counted from the north, in order; and how many rows are no tile of the zoom."""
    count = 1 << zoom
    numbers, broken = set[tuple[int, int]](), 0
    for x, row in file.rows("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", zoom):
        if isinstance(x, int) and isinstance(row, int) and 0 <= x < count and 0 <= row < count:
            numbers.add((x, count - 1 - row))
        else:
            broken += 1
        check_count(path, zoom, len(numbers) + broken)
    return sorted(numbers), broken


@dataclass(frozen=True)
class _Rows:
    """A TileStore over the tiles of a zoom. Each thread has a connection of its own, which ends with it."""

    path: Path
    zoom: int
    _connections: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["_Rows"], tuple[Any, ...]]:
        """Connections stay behind when it is sent to another process."""
        return _Rows, (self.path, self.zoom)

    def name(self, x: int, y: int) -> str:
        return name_in_file(self.path, self.zoom, x, y)

    def image(self, x: int, y: int) -> Image.Image:
        return decode_bytes(self.content(x, y), self.name(x, y)).image

    def content(self, x: int, y: int) -> bytes:
        """The bytes of a tile's image. Raises ImageError when there are none, or too many."""
        if not hasattr(self._connections, "file"):
            self._connections.file = _open(self.path, ImageError)
        where = "FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ? LIMIT 1"
        at = (self.zoom, x, (1 << self.zoom) - 1 - y)
        sizes = list(self._connections.file.rows(f"SELECT length(tile_data) {where}", *at))
        if not sizes or not isinstance(sizes[0][0], int) or sizes[0][0] > MAX_BYTES:
            raise ImageError(
                f"{self.name(x, y)} holds {sizes[0][0] if sizes else 'nothing'} bytes; allowed are up to {MAX_BYTES:,}."
            )
        (content,) = next(self._connections.file.rows(f"SELECT tile_data {where}", *at))
        if not isinstance(content, bytes):
            raise ImageError(f"{self.name(x, y)} holds no bytes of an image.")
        return content
