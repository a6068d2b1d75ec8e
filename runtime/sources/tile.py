"""An aerial tile before it is embedded, and where tiles come from.

Knows a tile's attributes; knows nothing of galleries or engines.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.documents import decode_json
from geodtr.runtime.images.decode import Decoded, decode

MAX_TILES = 5_000_000
"""Of one source: more are a mistake in the zoom or the size, or in the file."""
_BLOCK = 4096
_LIMITS = 90, 180, 360
"""Degrees of lat, lon and heading at most."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One reference. `id` is unique within its source and stays the same when the source is read again.

    `file` names the origin of its pixels for people. `lat` and `lon` (degrees, WGS 84) are its centre's; both or none
    are known. `heading` is the direction of its upper edge, in degrees clockwise from north. `more` holds any further
    values of the source, as JSON values.
    """

    id: str
    file: str
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    metres_per_pixel: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_window(self) -> bool:
        """Whether it was cut out of a map, whose pixels are read again by its window."""
        return "window" in self.more

    @property
    def side_metres(self) -> float | None:
        """The side on the ground of a tile that was cut out of a map; None of any other, and where it is not known."""
        window, scale = self.more.get("window"), self.metres_per_pixel
        if scale is None or not (isinstance(window, list) and len(window) == 4):
            return None
        pixels = [self.more["pixels"]] if "pixels" in self.more else window[2:]
        return scale * max(pixels) if all(isinstance(each, int) for each in pixels) else None


class TileSource(Protocol):
    """Where tiles come from: a folder, a data set, a map that is cut up. `name` is what the user called it.

    It can be pickled, so that other processes read its tiles.
    """

    @property
    def name(self) -> str: ...

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in an order that stays; listing them reads no pixels."""
        ...

    def read(self, tile: Tile) -> Decoded:
        """The tile in memory; safe to call from several threads. Raises ImageError naming it."""
        ...


@dataclass(frozen=True, slots=True)
class ListedTiles:
    """A TileSource whose tiles are image files, of a folder or a data set. `notes` say where positions come from."""

    name: str
    tiles: Sequence[Tile]
    notes: tuple[str, ...] = ()

    def read(self, tile: Tile) -> Decoded:
        """The file's image."""
        return decode(Path(tile.file))


@dataclass(frozen=True, slots=True)
class Position:
    """Degrees, WGS 84. `heading` is where the tile's upper edge points, clockwise from north, 0 to 360, and
    `metres_per_pixel` its scale, where they are known.
    """

    lat: float
    lon: float
    heading: float | None = None
    metres_per_pixel: float | None = None


def check_position(lat: float, lon: float, where: str, heading: float | None = None) -> Position:
    """The position, its heading brought into 0 to 360 degrees.

    Raises DataError, beginning with `where`, when a value is no finite number or lies outside +-90, +-180 or +-360.
    """
    fault = _out_of_range(lat, lon, heading)
    if fault is not None:
        raise DataError(f"{where}: {fault}.")
    return Position(lat, lon, None if heading is None else heading % 360)


def check_tiles(source: str, tiles: Sequence[Tile]) -> None:
    """Raise DataError naming the first tile of `source` whose id is empty or taken, or whose values are impossible."""
    ids = set[str]()
    for start in range(0, len(tiles), _BLOCK):
        block = list(tiles[start : start + _BLOCK])
        ids.update(tile.id for tile in block)
        if len(ids) < start + len(block) or not _are_valid(block):
            break
    else:
        return
    ids.clear()
    for tile in tiles:
        fault = "its id is taken by another tile" if tile.id in ids else _fault(tile)
        if fault:
            raise DataError(
                f"{source}: tile {tile.id!r} (file {tile.file!r}): {fault}. Correct the source, and repeat."
            )
        ids.add(tile.id)


def _are_valid(tiles: Sequence[Tile]) -> bool:
    """Whether `_fault` finds nothing in any of `tiles`: all at once, in a tenth of the time."""
    try:
        "".join([text for tile in tiles for text in (tile.id, tile.file)]).encode()
        decode_json(msgspec.json.encode([dict(tile.more) for tile in tiles if tile.more]), object)
        values = [(tile.lat, tile.lon, tile.heading, tile.metres_per_pixel) for tile in tiles]
        # An array takes numbers only, where NumPy would convert a text.
        *degrees, scales = (
            np.array(array("d", [number for number in column if number is not None]))
            for column in zip(*values, strict=True)
        )
    except (TypeError, ValueError, OverflowError):
        return False
    within = [np.abs(column) <= limit for column, limit in zip(degrees, _LIMITS, strict=True)]
    valid = np.concatenate([*within, np.isfinite(scales) & (scales > 0)])
    return bool(valid.all()) and all(tile.id and (tile.lat is None) == (tile.lon is None) for tile in tiles)


def _fault(tile: Tile) -> str | None:
    """Why a tile cannot be kept, or None."""
    if not tile.id:
        return "its id is empty"
    if (tile.lat is None) != (tile.lon is None):
        return f"lat is {tile.lat} and lon {tile.lon}; both or neither must be known"
    fault = _out_of_range(tile.lat, tile.lon, tile.heading)
    if fault is not None:
        return fault
    scale = tile.metres_per_pixel
    if scale is not None and not (isfinite(scale) and scale > 0):
        return f"metres_per_pixel is {scale}; it must be above 0 and finite"
    try:
        text = msgspec.json.encode((tile.id, tile.file, dict(tile.more)))
        decode_json(text, object)
    except (TypeError, ValueError) as error:
        if isinstance(error, UnicodeEncodeError):
            error = ValueError("a name is not UTF-8, as a gallery keeps it: rename the file")
        return f"it cannot be written down as JSON ({error})"
    return None


def _out_of_range(lat: float | None, lon: float | None, heading: float | None) -> str | None:
    """Which value cannot be, or None."""
    for name, value, limit in zip(("lat", "lon", "heading"), (lat, lon, heading), _LIMITS, strict=True):
        if value is not None and not abs(value) <= limit:
            return f"{name} is {value:g}; it must lie within -{limit} and {limit} degrees"
    return None
