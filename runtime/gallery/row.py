"""A reference as every gallery stores it, in a folder's table or in Milvus: a row of plain values and its checksum."""

import zlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.files.documents import decode_json
from geodtr.runtime.sources.tile import Tile

Row = tuple[str, str, float | None, float | None, float | None, float | None, str]
"""The values of ROW. `more` is a JSON object."""
ROW = ("id", "file", "lat", "lon", "heading", "metres_per_pixel", "more")


class _Checked(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A Row: of a struct msgspec prepares the checks once, of a tuple's type for each row."""

    id: str
    file: str
    lat: float | None
    lon: float | None
    heading: float | None
    metres_per_pixel: float | None
    more: str


def as_row(tile: Tile) -> Row:
    """The stored values of a tile. Raises TypeError when its `more` is not JSON."""
    numbers = (tile.lat, tile.lon, tile.heading, tile.metres_per_pixel)
    # SQLite does not store a negative zero, so the checksum would not match.
    lat, lon, heading, metres = (None if number is None else float(number) + 0.0 for number in numbers)
    more = msgspec.json.encode(dict(tile.more), order="deterministic").decode()
    return tile.id, tile.file, lat, lon, heading, metres, more


def as_tile(row: Row) -> Tile:
    """The tile of a row. Raises msgspec.DecodeError when the row is damaged."""
    each = msgspec.convert(row, _Checked)
    more = {} if each.more == "{}" else decode_json(each.more, dict[str, Any])
    return Tile(each.id, each.file, each.lat, each.lon, each.heading, each.metres_per_pixel, more)


def checksum(row: tuple[Any, ...], descriptor: NDArray[np.float32]) -> int:
    """CRC-32 of a reference's stored values (a Row unless it is damaged) and its float32 descriptor [D]."""
    return zlib.crc32(np.ascontiguousarray(descriptor, "<f4").data, zlib.crc32(msgspec.msgpack.encode(row)))
