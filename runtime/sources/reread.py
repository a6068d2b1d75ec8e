"""The pixels of a gallery's tiles, read again where they came from: image files, and windows of a map."""

import threading
from pathlib import Path

from geodtr.runtime.errors import ImageError, UserError
from geodtr.runtime.images.decode import Decoded, decode
from geodtr.runtime.sources.geotiff import GeoTiff, reopen_geotiff
from geodtr.runtime.sources.tile import Tile


class TilePixels:
    """Reads tiles by what each says of its origin. Safe to use from several threads."""

    def __init__(self) -> None:
        self._maps: dict[str, GeoTiff] = {}
        self._lock = threading.Lock()

    def read(self, tile: Tile) -> Decoded:
        """The tile as it was embedded. Raises ImageError when its origin cannot be read any more."""
        if "window" in tile.more:
            return self._map(tile.file).read(tile)
        path = Path(tile.file)
        if not path.is_file():
            raise ImageError(
                f"Tile {tile.id!r} cannot be read again from {tile.file}: tiles are read from image files and from "
                "GeoTIFF maps, which must be where they were when the gallery was built."
            )
        return decode(path)

    def _map(self, file: str) -> GeoTiff:
        with self._lock:
            if file not in self._maps:
                try:
                    self._maps[file] = reopen_geotiff(Path(file))
                except UserError as error:
                    raise ImageError(f"Tiles cannot be read again: {error}") from None
            return self._maps[file]
