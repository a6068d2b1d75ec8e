"""The references of a data set as gallery tiles."""

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.sources.positioned.filename import find_in_name
from geodtr.runtime.sources.registry import Options
from geodtr.runtime.sources.tile import ListedTiles, Tile
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import parse_spec, read_test_set


def open_references(spec: str, options: Options | None) -> tuple[ListedTiles, PairSet]:
    """The references of the data set `spec` as tiles, with the set. Raises ConfigError where a source's options are
    given, DataError as read_test_set does.
    """
    if options is not None:
        raise ConfigError(f"{spec} is a data set, which contains its tile positions: leave the options out.")
    pair_set = read_test_set(spec)
    return reference_tiles(pair_set), pair_set


def reference_tiles(pair_set: PairSet) -> ListedTiles:
    """Every reference of the set as a tile; its id is the path relative to the set's folder.

    The position is from the file name (VIGOR), else from the tile's first pair, else unknown.
    """
    paths, root = pair_set.references, parse_spec(pair_set.name).root
    named = {path: (at.lat, at.lon) for path in paths if (at := find_in_name(path)) is not None}
    paired = {pair.aerial: (pair.lat, pair.lon) for pair in reversed(pair_set.pairs)}
    tiles = list[Tile]()
    for path in paths:
        lat, lon = named.get(path) or paired.get(path, (None, None))
        name = path.relative_to(root) if path.is_relative_to(root) else path
        tiles.append(Tile(id=name.as_posix(), file=str(path), lat=lat, lon=lon))
    if not any(tile.lat is not None for tile in tiles):
        return ListedTiles(pair_set.name, tiles, ("The data set gives no positions.",))
    origin = "the pairs" if not named else "the tiles' names" if len(named) == len(tiles) else "names and pairs"
    return ListedTiles(pair_set.name, tiles, (f"Positions are from {origin}.",))
