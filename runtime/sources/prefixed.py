"""A source with a prefix on its ids, for two maps of one name or two folders with the same file names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.sources.registry import OpenedSource
from geodtr.runtime.sources.tile import Tile


@dataclass(frozen=True)
class PrefixedTiles:
    """The TileSource `source` with `prefix` before each id."""

    source: OpenedSource
    prefix: str

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    @cached_property
    def tiles(self) -> Sequence[Tile]:
        return [replace(tile, id=self.prefix + tile.id) for tile in self.source.tiles]

    def read(self, tile: Tile) -> Decoded:
        """As the source does, by the tile's values other than its id."""
        return self.source.read(tile)
