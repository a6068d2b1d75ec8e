"""The aerial images of a data set as tiles of a gallery."""

from geodtr.runtime.tile import FileTiles, Tile
from geodtr.training.data.pair_set import PairSet


def tiles_of(pair_set: PairSet) -> FileTiles:
    """Every reference once, in the set's order, by its path; a tile lies where its first pair does."""
    pairs = {pair.aerial: pair for pair in reversed(pair_set.pairs)}
    tiles = []
    for path in pair_set.references:
        pair = pairs.get(path)
        lat, lon = (None, None) if pair is None else (pair.lat, pair.lon)
        tiles.append(Tile(str(path), str(path), lat, lon))
    return FileTiles(pair_set.name, tuple(tiles))
