"""PMTiles written as the specification describes them, for tests: header, directories, images."""

import gzip
import struct
from collections.abc import Mapping, Sequence

Number = tuple[int, int, int]
"""Zoom, x, y."""


def tile_id(zoom: int, x: int, y: int) -> int:
    """The number along the Hilbert curve, by quadrants, after all tiles of smaller zooms."""
    along, side = 0, 1 << zoom
    while side > 1:
        half = side // 2
        right, down = int(x >= half), int(y >= half)
        along += half * half * ((3 * right) ^ down)
        x, y = x % half, y % half
        if not down:
            if right:
                x, y = half - 1 - x, half - 1 - y
            x, y = y, x
        side = half
    return along + int(4**zoom - 1) // 3


def _varint(value: int) -> bytes:
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(content) + bytes([value])


def directory(entries: Sequence[tuple[int, int, int, int]]) -> bytes:
    """Entries of first number, run, length and offset, compressed."""
    numbers = [len(entries)]
    numbers += [entry[0] - before for entry, before in zip(entries, [0, *(each[0] for each in entries)], strict=False)]
    numbers += [entry[1] for entry in entries] + [entry[2] for entry in entries] + [entry[3] + 1 for entry in entries]
    return gzip.compress(b"".join(map(_varint, numbers)))


def pmtiles(tiles: Mapping[Number, bytes], *, leaf: int | None = None, kind: int = 2) -> bytes:
    """A file of these images; with `leaf`, directories below the root have so many entries."""
    data, entries = b"", list[tuple[int, int, int, int]]()
    for number, content in sorted((tile_id(*place), content) for place, content in tiles.items()):
        entries.append((number, 1, len(content), len(data)))
        data += content
    leaves = b""
    if leaf is not None:
        below = list[tuple[int, int, int, int]]()
        for start in range(0, len(entries), leaf):
            content = directory(entries[start : start + leaf])
            below.append((entries[start][0], 0, len(content), len(leaves)))
            leaves += content
        entries = below
    return assemble(directory(entries), leaves, data, kind)


def assemble(root: bytes, leaves: bytes, data: bytes, kind: int = 2) -> bytes:
    """The file of these parts."""
    at = 127 + len(root)
    parts = (127, len(root), at, 0, at, len(leaves), at + len(leaves), len(data), 0, 0, 0)
    header = struct.pack("<7sB11Q6B", b"PMTiles", 3, *parts, 1, 2, 1, kind, 0, 0)
    return header.ljust(127, b"\0") + root + leaves + data
