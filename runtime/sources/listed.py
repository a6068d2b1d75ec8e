"""Tiles that are image files, one each: what a folder and a data set come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.images.decode import Decoded, decode
from geodtr.runtime.sources.tile import Tile


@dataclass(frozen=True, slots=True)
class ListedTiles:
    """A TileSource whose tiles' `file` is the path of an image. `notes` say how the positions were come by."""

    name: str
    tiles: Sequence[Tile]
    notes: tuple[str, ...] = ()

    def read(self, tile: Tile) -> Decoded:
        """As images.decode."""
        return decode(Path(tile.file))
