"""Small maps as files, for tests: a picture whose pixels tell where they are, in any reference system."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

UTM, MERCATOR, DEGREES = "EPSG:32632", "EPSG:3857", "EPSG:4326"


def picture(width: int, height: int, bands: int = 3) -> NDArray[np.uint8]:
    """[bands, height, width], no two windows alike."""
    return np.random.default_rng(0).integers(1, 256, (bands, height, width), np.uint8)


def write_map(path: Path, pixels: NDArray[Any], crs: str | None, to_map: rasterio.Affine, **more: Any) -> Path:
    """A GeoTIFF of `pixels` [bands, height, width]; `to_map` takes (column, row) to the map's coordinates."""
    bands, height, width = pixels.shape
    shape = {"width": width, "height": height, "count": bands, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=to_map, **shape, **more) as file:
        file.write(pixels)
    return path
