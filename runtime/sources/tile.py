"""An aerial tile before it is embedded, and where tiles come from.

Knows what a tile says of itself; knows nothing of galleries or engines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Protocol

import msgspec

from geodtr.runtime.errors import DataError
from geodtr.runtime.images.decode import Decoded


@dataclass(frozen=True, slots=True)
class Tile:
    """One reference. `id` tells it from the others of its source and stays the same when the source is read again.

    `file` is where its pixels come from, as a person would name it. `lat` and `lon` (degrees, WGS 84) are its centre's;
    both or neither are known. `heading` is where its upper edge points, in degrees clockwise from north. `more` is
    whatever else the source says, as JSON values.
    """

    id: str
    file: str
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None
    metres_per_pixel: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


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


def check_tiles(source: str, tiles: Sequence[Tile]) -> None:
    """Raise DataError naming the first tile of `source` whose id is empty or taken, or that says what cannot be."""
    ids = set[str]()
    for tile in tiles:
        fault = "its id is taken by another tile" if tile.id in ids else _fault(tile)
        if fault:
            raise DataError(
                f"{source}: tile {tile.id!r} (file {tile.file!r}): {fault}. Correct the source, and repeat."
            )
        ids.add(tile.id)


def _fault(tile: Tile) -> str | None:
    """Why a tile cannot be kept, or None."""
    if not tile.id:
        return "its id is empty"
    if (tile.lat is None) != (tile.lon is None):
        return f"lat is {tile.lat} and lon {tile.lon}; both or neither must be known"
    limits = (("lat", tile.lat, -90, 90), ("lon", tile.lon, -180, 180), ("heading", tile.heading, -360, 360))
    for name, value, least, most in limits:
        if value is not None and not least <= value <= most:
            return f"{name} is {value}; allowed are {least} to {most} degrees"
    scale = tile.metres_per_pixel
    if scale is not None and not (isfinite(scale) and scale > 0):
        return f"metres_per_pixel is {scale}; it must be above 0 and finite"
    try:
        text = msgspec.json.encode((tile.id, tile.file, dict(tile.more)))
        msgspec.json.decode(text)
    except (TypeError, ValueError) as error:
        return f"it cannot be written down as JSON ({error})"
    return None
