"""Where a map has no data: by its nodata value, mask or alpha band, and by the value that its user names."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.progress import Track
from geodtr.runtime.sources.raster.bands import Bands, alpha_band
from geodtr.runtime.sources.raster.grid import Grid

_PROBE = 64
"""Points a side at which a tile is asked whether the map has data there."""

_MOST_BLOCKS = 20_000_000
"""More are not asked for one by one."""

_PLACES, _PATCH = 16, 8
"""Places a side at which a map is looked at for black, and pixels a side of what is looked at there."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What marks a pixel as empty: GDAL's mask of the map (`mask`), the band `alpha` where it is 0, all `bands`
    where they are `nodata`.
    """

    mask: bool
    alpha: int | None
    bands: tuple[int, ...]
    nodata: float | None

    def __bool__(self) -> bool:
        return self.mask or self.alpha is not None or self.nodata is not None

    def empty_shares(self, dataset: Any, grid: Grid, track: Track) -> NDArray[np.float64]:
        """The share of each tile that is empty, [N], judged at _PROBE x _PROBE points."""
        from rasterio.windows import Window

        shares = np.ones(len(grid))
        written = np.flatnonzero(_written(dataset, grid)) if self._in_unwritten(dataset) else np.arange(len(grid))
        for index in track(written.tolist(), "Looking for empty tiles", len(written)):
            tile = grid[index]
            window = Window(tile.column, tile.row, tile.width, tile.height)
            shape = (min(_PROBE, tile.height), min(_PROBE, tile.width))
            shares[index] = self.empty(dataset, window, shape).mean()
        return shares

    def _in_unwritten(self, dataset: Any) -> bool:
        """Whether blocks of a sparse TIFF that were never written count as empty: they are read as nodata, or as 0."""
        filled = dataset.nodata or 0
        return dataset.driver == "GTiff" and (
            dataset.nodata is not None or self.alpha is not None or self.nodata == filled
        )

    def empty(self, dataset: Any, window: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Which of the points of a window, `shape` down and across, are empty."""
        empty = np.zeros(shape, bool)
        if self.mask:
            empty |= dataset.dataset_mask(window=window, out_shape=shape) == 0
        if self.alpha is not None:
            empty |= dataset.read(self.alpha, window=window, out_shape=shape) == 0
        if self.nodata is not None:
            values = dataset.read(list(self.bands), window=window, out_shape=(len(self.bands), *shape))
            empty |= (values == self.nodata).all(axis=0)
        return empty


def _written(dataset: Any, grid: Grid) -> NDArray[np.bool_]:
    """Which tiles [N] touch a block of the TIFF that was written. That is known without reading: a sparse map of mostly
    nothing has millions of blocks.
    """
    high, wide = dataset.block_shapes[0]
    rows, columns = -(-dataset.height // high), -(-dataset.width // wide)
    if rows * columns > _MOST_BLOCKS:
        return np.ones(len(grid), bool)
    # Where bands are stored apart, a block of each may be missing.
    bands = (1,) if dataset.profile.get("interleave") == "pixel" else range(1, dataset.count + 1)
    there = np.array(
        [
            any(dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band) is not None for band in bands)
            for row in range(rows)
            for column in range(columns)
        ]
    )
    # The sum over all blocks above and left of a corner: four of them give the number in any rectangle.
    sums = np.zeros((rows + 1, columns + 1), np.int64)
    sums[1:, 1:] = there.reshape(rows, columns).cumsum(axis=0).cumsum(axis=1)
    top, left = grid.row // high, grid.column // wide
    bottom, right = -(-(grid.row + grid.height) // high), -(-(grid.column + grid.width) // wide)
    return np.asarray(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left] > 0)


def find_marks(dataset: Any, bands: Bands, nodata: float | None) -> Marks:
    """How an opened rasterio dataset marks what is empty; `nodata` is the user's own value, on top of that."""
    from rasterio.enums import MaskFlags

    alpha = alpha_band(dataset)
    # GDAL takes an alpha band for a mask only where it is the last of two or four.
    mask = alpha is None and not all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums)
    return Marks(mask, alpha, bands.indexes, nodata)


def black_share(dataset: Any, bands: Bands, marks: Marks) -> float:
    """The share of places, spread over the map, where all bands are 0 in a patch of pixels that nothing marks as empty;
    0 of a palette's map.
    """
    from rasterio.windows import Window

    if bands.palette is not None:
        return 0.0
    width, height = min(_PATCH, dataset.width), min(_PATCH, dataset.height)
    columns, rows = (
        np.linspace(0, size - patch, _PLACES).astype(int).tolist()
        for size, patch in ((dataset.width, width), (dataset.height, height))
    )
    windows = [Window(column, row, width, height) for row, column in product(rows, columns)]
    black = [
        not dataset.read(list(bands.indexes), window=window).any()
        and not marks.empty(dataset, window, (height, width)).any()
        for window in windows
    ]
    return float(np.mean(black))
