"""A reference as every gallery stores it, in a folder's table or in Milvus: a row of plain values and its checksum."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from geodtr.runtime.files.documents import decode_json
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Descriptors

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
    more = msgspec.json.encode(dict(tile.more), order="deterministic").decode() if tile.more else "{}"
    lat, lon, heading = _number(tile.lat), _number(tile.lon), _number(tile.heading)
    return tile.id, tile.file, lat, lon, heading, _number(tile.metres_per_pixel), more


def as_tile(row: Row) -> Tile:
    """The tile of a row. Raises msgspec.DecodeError when the row is damaged."""
    each = msgspec.convert(row, _Checked)
    more = {} if each.more == "{}" else decode_json(each.more, dict[str, Any])
    return Tile(each.id, each.file, each.lat, each.lon, each.heading, each.metres_per_pixel, more)


def checksums(rows: Iterable[tuple[Any, ...]], descriptors: Descriptors) -> Iterator[int]:
    """CRC-32 of each reference's stored values (a Row unless it is damaged) and its descriptor, of float32 [N, D]."""
    encode = msgspec.msgpack.Encoder().encode
    for row, descriptor in zip(rows, np.ascontiguousarray(descriptors, "<f4"), strict=True):
        yield zlib.crc32(descriptor, zlib.crc32(encode(row)))


def _number(value: float | None) -> float | None:
    # SQLite does not store a negative zero, so the checksum would not match.
    return None if value is None else float(value) + 0.0
