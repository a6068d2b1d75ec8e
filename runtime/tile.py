"""An aerial tile before it is embedded, and where tiles come from.

Knows what a tile says of itself; knows nothing of galleries or engines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from geodtr.runtime.images import Decoded


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
    """Where tiles come from: a folder, a data set, a map that is cut up. `name` is what the user called it."""

    @property
    def name(self) -> str: ...

    @property
    def tiles(self) -> Sequence[Tile]:
        """All tiles, in an order that stays; listing them reads no pixels."""
        ...

    def read(self, tile: Tile) -> Decoded:
        """The tile's pixels, uint8 RGB [H, W, 3]; safe to call from several threads. Raises ImageError naming it."""
        ...
