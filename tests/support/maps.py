"""Small maps as files, for tests: a picture whose pixels tell where they are, in any reference system."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

UTM, MERCATOR, DEGREES = "EPSG:32632", "EPSG:3857", "EPSG:4326"
ORIGIN = {UTM: (600_000, 5_330_000), MERCATOR: (1_280_000, 6_130_000), DEGREES: (11.5, 48.13)}
"""Coordinates near Munich, by reference system."""


def upright(crs: str) -> Affine:
    """Pixels of half a metre in the system, or of about as many degrees."""
    pixel = (0.5 / 74_000, 0.5 / 111_000) if crs == DEGREES else (0.5, 0.5)
    return Affine.translation(*ORIGIN[crs]) @ Affine.scale(pixel[0], -pixel[1])


MAPS = {
    "UTM": (UTM, upright(UTM)),
    "Web Mercator": (MERCATOR, upright(MERCATOR)),
    "degrees": (DEGREES, upright(DEGREES)),
    "rotated": (UTM, Affine.translation(*ORIGIN[UTM]) @ Affine.rotation(-30) @ Affine.scale(0.5, -0.5)),
    "upside down": (UTM, Affine.translation(*ORIGIN[UTM]) @ Affine.scale(-0.5, 0.5)),
    "rows upwards": (UTM, Affine.translation(*ORIGIN[UTM]) @ Affine.scale(0.5, 0.5)),
}


def picture(width: int, height: int, bands: int = 3) -> NDArray[np.uint8]:
    """Random pixels [bands, height, width], so that no two windows are equal."""
    return np.random.default_rng(0).integers(1, 256, (bands, height, width), np.uint8)


def write_map(path: Path, pixels: NDArray[Any], crs: str | None, to_map: Affine, **more: Any) -> Path:
    """A GeoTIFF of `pixels` [bands, height, width]; `to_map` takes (column, row) to the map's coordinates."""
    bands, height, width = pixels.shape
    shape = {"width": width, "height": height, "count": bands, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=to_map, **shape, **more) as file:
        file.write(pixels)
    return path


def utm_map(path: Path, pixels: NDArray[Any], **more: Any) -> Path:
    """A GeoTIFF in UTM, north up, with pixels of 0.5 m."""
    return write_map(path, pixels, UTM, upright(UTM), **more)
