"""A map, or a part of it, as one picture of a frame: read thinned out, at the picture's own resolution."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.errors import DataError
from geodtr.runtime.geodesy import wrapped
from geodtr.runtime.sources.coverage import Frame
from geodtr.runtime.sources.raster.bands import Bands, alpha_band, choose_bands
from geodtr.runtime.sources.raster.gdal import gdal, open_map
from geodtr.runtime.spec import Images

Floats = NDArray[np.float64]

_NODES = 33
"""Places along a side of the frame that are looked up in the map; between them it is taken to be straight."""
_STRETCH = (2, 98)
"""Percentiles that become black and white, where it is not known what does."""


def read_overview(path: Path, bands: Bands | None, frame: Frame, size: tuple[int, int]) -> Image.Image:
    """What the map `path` shows of the frame, RGBA of `size` pixels, transparent where it has nothing. `bands`: as they
    are read elsewhere; None for red, green and blue, stretched where they are not of 8 bits.

    Raises DataError when the file is no map that can be read, or has no position; MissingDependency without rasterio.
    """
    width, height = size
    dataset = open_map(path)
    with gdal(DataError, f"{path} cannot be read: truncated or corrupt. Get it again."):
        if dataset.crs is None:
            raise DataError(f"{path} does not say in which coordinate reference system it is.")
        columns, rows = _pixels(dataset, frame, width, height)
        inside = (columns >= 0) & (columns < dataset.width) & (rows >= 0) & (rows < dataset.height)
        picture = np.zeros((height, width, 4), np.uint8)
        if inside.any():
            columns, rows = columns[inside].astype(np.int64), rows[inside].astype(np.int64)
            picture[inside] = _read(dataset, path, bands, columns, rows, size)
        dataset.close()
    return Image.fromarray(picture)


def _pixels(dataset: Any, frame: Frame, width: int, height: int) -> tuple[Floats, Floats]:
    """The map's columns and rows under the middles of the picture's pixels, [H, W] each; NaN where it has none."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    lat, lon = np.meshgrid(
        np.linspace(frame.north, frame.south, _NODES), np.linspace(frame.west, frame.east, _NODES), indexing="ij"
    )
    around = wrapped(lon.ravel())
    x, y = (np.array(each) for each in transform(CRS.from_epsg(4326), dataset.crs, around, lat.ravel()))
    if dataset.crs.is_geographic:
        middle = (dataset.bounds.left + dataset.bounds.right) / 2
        x = wrapped(x - middle) + middle
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, np.nan), np.where(known, y, np.nan)
    into = ~dataset.transform
    columns, rows = into.a * x + into.b * y + into.c, into.d * x + into.e * y + into.f
    return _refined(columns.reshape(lat.shape), height, width), _refined(rows.reshape(lat.shape), height, width)


def _refined(nodes: Floats, height: int, width: int) -> Floats:
    """Values at the middles of [H, W] pixels, linear between nodes that lie evenly from edge to edge."""
    down, right = ((np.arange(count) + 0.5) / count * (_NODES - 1) for count in (height, width))
    row, column = down.astype(np.int64), right.astype(np.int64)
    below, beside = (down - row)[:, None], right - column
    upper, lower = (
        nodes[each][:, column] * (1 - beside) + nodes[each][:, column + 1] * beside for each in (row, row + 1)
    )
    return np.asarray(upper * (1 - below) + lower * below, np.float64)


def _read(
    dataset: Any, path: Path, bands: Bands | None, columns: NDArray[np.int64], rows: NDArray[np.int64], size: Any
) -> Images:
    """RGBA [N, 4] of the map's pixels, which are read once, as coarse as a picture of `size` needs them."""
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    thinned = max(1.0, min((right - left) / size[0], (bottom - top) / size[1]))
    shape = round((bottom - top) / thinned) or 1, round((right - left) / thinned) or 1
    window = Window(left, top, right - left, bottom - top)
    alpha = alpha_band(dataset)
    mask = (
        dataset.dataset_mask(window=window, out_shape=shape)
        if alpha is None
        else dataset.read(alpha, window=window, out_shape=shape)
    )
    used = bands or _own_bands(dataset, path)
    how = Resampling.nearest if used.palette is not None else Resampling.average
    values = dataset.read(list(used.indexes), window=window, out_shape=(len(used.indexes), *shape), resampling=how)
    if bands is None and used.stretch is not None:
        valued = values[:, mask > 0].astype(np.float64)
        low, high = np.nanpercentile(valued, _STRETCH) if valued.size else used.stretch
        used = replace(used, stretch=(float(low), float(high) if high > low else float(low) + 1))
    shown = np.dstack([used.to_rgb(values), np.where(mask > 0, np.uint8(255), np.uint8(0))])
    return np.asarray(shown[(rows - top) * shape[0] // (bottom - top), (columns - left) * shape[1] // (right - left)])


def _own_bands(dataset: Any, path: Path) -> Bands:
    try:
        return choose_bands(dataset, None, None, str(path))
    except DataError:
        return choose_bands(dataset, None, (0.0, 1.0), str(path))
