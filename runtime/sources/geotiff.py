"""A map in one file, cut into tiles of a ground size. Needs rasterio (extra `geo`)."""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from geodtr.runtime.errors import ConfigError, DataError, ImageError, MissingDependency, UserError
from geodtr.runtime.files import readable
from geodtr.runtime.geodesy import Values
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.installation import install_hint
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.bands import Bands, choose_bands
from geodtr.runtime.sources.grid import GridTile, lay_out
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import MAX_SIDE

SUFFIXES = frozenset({".tif", ".tiff", ".vrt"})
"""A .vrt is GDAL's list of the sheets that make one map (gdalbuildvrt)."""

_CACHE = 128 << 20
"""Bytes for the blocks that GDAL keeps decoded: by default it takes a twentieth of the machine's memory."""

_PROBE = 64
"""Points a side at which a tile is asked whether the map has data there."""


@dataclass(frozen=True, slots=True)
class GeoTiffOptions:
    """How a map is cut: tiles of `tile_metres` on the ground, centres at most `stride_metres` apart (a tile's size
    where it is None), drawn in `tile_pixels` (as many as the map has where it is None).

    `bands` are the three to read as red, green and blue, or one that is grey; `stretch` the values that become 0 and
    255, needed where the map does not hold 8-bit ones. A tile of which more than the share `max_empty` has no data is
    left out. Raises ConfigError naming a value out of range.
    """

    tile_metres: float
    stride_metres: float | None = None
    tile_pixels: int | None = None
    bands: tuple[int, ...] | None = None
    stretch: tuple[float, float] | None = None
    max_empty: float = 0.2

    def __post_init__(self) -> None:
        for name, metres in (("tile", self.tile_metres), ("stride", self.stride_metres)):
            if metres is not None and not (isfinite(metres) and metres > 0):
                raise ConfigError(f"The {name} is {metres:g} m; it must be above 0.")
        if self.tile_pixels is not None and not 1 <= self.tile_pixels <= MAX_SIDE:
            raise ConfigError(f"Tiles of {self.tile_pixels} pixels are asked for; allowed are 1 to {MAX_SIDE}.")
        if self.bands is not None and len(self.bands) not in (1, 3):
            raise ConfigError(f"{len(self.bands)} bands are asked for; name three (red, green, blue), or a grey one.")
        if self.stretch is not None and not (all(map(isfinite, self.stretch)) and self.stretch[0] < self.stretch[1]):
            raise ConfigError(f"The stretch is {self.stretch[0]:g} to {self.stretch[1]:g}; it must rise.")
        if not 0 <= self.max_empty <= 1:
            raise ConfigError(f"The largest empty share is {self.max_empty:g}; it must lie within 0 and 1.")


@dataclass(frozen=True)
class GeoTiff:
    """A TileSource over a map. Reading is safe from threads: each has a handle of its own, which ends with it."""

    path: Path
    tiles: Sequence[Tile]
    notes: tuple[str, ...]
    bands: Bands
    tile_pixels: int | None
    _handles: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["GeoTiff"], tuple[Any, ...]]:
        """Handles stay behind when it is sent to another process."""
        return GeoTiff, (self.path, self.tiles, self.notes, self.bands, self.tile_pixels)

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self, tile: Tile) -> Decoded:
        """The tile, rotated to its `heading`; if `tile_pixels` differs from the map's resolution, resampled bilinearly
        with antialiasing, from overviews where the map has them.

        Raises ImageError naming the map and the window that cannot be read.
        """
        from rasterio.enums import Resampling
        from rasterio.windows import Window

        window = tile.more["window"]
        side = self.tile_pixels or max(window[2:])
        how = Resampling.nearest if self.bands.palette is not None else Resampling.bilinear
        with _gdal(ImageError, f"{tile.id} cannot be read from {self.path}: truncated or corrupt. Get it again."):
            values = self._handle().read(
                list(self.bands.indexes),
                window=Window(*window),
                out_shape=(len(self.bands.indexes), side, side),
                resampling=how,
            )
        pixels = self.bands.to_rgb(values)
        return Decoded.of(np.ascontiguousarray(pixels[::-1]) if tile.more.get("flipped") else pixels)

    def _handle(self) -> Any:
        """This thread's own opened dataset: GDAL's must not be shared."""
        if not hasattr(self._handles, "dataset"):
            try:
                self._handles.dataset = _open(self.path)
            except DataError as error:
                raise ImageError(str(error)) from None
        return self._handles.dataset


def open_geotiff(path: Path, options: GeoTiffOptions, *, track: Track = untracked) -> GeoTiff:
    """Cut the map `path` into tiles, whose ids are its name and their windows in pixels (column, row, width, height).

    Only where the map marks some of its pixels as empty is it read here, thinned out. Raises DataError when the file is
    no map, has no position or no values that make a picture, or when no tile is left; ConfigError for bands that it
    does not have; MissingDependency without rasterio.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Dataset has no geotransform")  # it is refused below, in a sentence
        dataset = _open(path)
    _check_georeferenced(dataset, path)
    bands = choose_bands(dataset, options.bands, options.stretch, str(path))
    stride = options.tile_metres if options.stride_metres is None else options.stride_metres
    locate = partial(_locate, dataset, path)
    try:
        grid = lay_out(dataset.width, dataset.height, locate, options.tile_metres, stride)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    kept = _with_data(dataset, path, grid, options.max_empty, track)
    if not kept:
        raise DataError(
            f"{path}: each of {len(grid)} tiles is more than {options.max_empty:.0%} empty. Allow more: --max-empty 0.9"
        )
    notes = [f"{path.name} is {dataset.width} x {dataset.height} pixels in {_crs_name(dataset.crs)}."]
    if len(kept) < len(grid):
        notes.append(
            f"{len(grid) - len(kept)} of {len(grid)} tiles are left out: more than {options.max_empty:.0%} of each has "
            "no data."
        )
    tiles = [_tile(path, each, options.tile_pixels) for each in kept]
    dataset.close()
    return GeoTiff(path, tiles, tuple(notes), bands, options.tile_pixels)


def _open(path: Path) -> Any:
    try:
        import rasterio
    except ModuleNotFoundError:
        raise MissingDependency(f"Cutting a map needs rasterio: {install_hint('geo')}") from None
    with readable(DataError):
        if not path.is_file():
            raise DataError(f"{path} does not exist. Check the path.")
    with _gdal(DataError, f"{path} is not a map that can be read. Get it again."):
        return rasterio.open(path)


@contextmanager
def _gdal(error_class: type[UserError], sentence: str) -> Iterator[None]:
    """Call rasterio with a cache of a size that is ours; what goes wrong is a `sentence` of the user's, and GDAL's."""
    import rasterio
    from rasterio._err import CPLE_BaseError  # GDAL's own errors have no public name, and some come through

    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE):
            yield
    # ValueError: raised for invalid names and reference systems.
    except (rasterio.errors.RasterioError, CPLE_BaseError, ValueError) as error:
        raise error_class(f"{sentence} GDAL reports: {error.__cause__ or error}") from None


def _check_georeferenced(dataset: Any, path: Path) -> None:
    if dataset.gcps[0] or (dataset.crs is None and dataset.rpcs):
        raise DataError(
            f"{path} gives control points in place of a position for each pixel. Warp it first, for example: "
            f"gdalwarp -t_srs EPSG:3857 {path} NEW.tif"
        )
    if dataset.crs is None:
        raise DataError(
            f"{path} does not say in which coordinate reference system it is. If you know it: "
            f"rio edit-info --crs EPSG:CODE {path}"
        )
    to_map = dataset.transform
    # A world file may say anything, infinity included; no reference system has places a million kilometres apart.
    if to_map.is_identity or to_map.is_degenerate or not all(abs(value) < 1e9 for value in to_map):
        raise DataError(f"{path} does not say where its pixels lie: its geotransform is missing or void.")


def _locate(dataset: Any, path: Path, columns: Values, rows: Values) -> tuple[Values, Values]:
    """As tile_grid.Locate, by the map's own reference system."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    to_map = dataset.transform
    x, y = to_map.a * columns + to_map.b * rows + to_map.c, to_map.d * columns + to_map.e * rows + to_map.f
    with _gdal(DataError, f"{path} cannot be brought from {_crs_name(dataset.crs)} to WGS 84."):
        lon, lat = (np.asarray(values) for values in transform(dataset.crs, CRS.from_epsg(4326), x, y))
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise DataError(f"{path} reaches beyond what {_crs_name(dataset.crs)} can express. Cut it smaller first.")
    return lat, lon


def _with_data(dataset: Any, path: Path, grid: Sequence[GridTile], max_empty: float, track: Track) -> list[GridTile]:
    """The tiles of which at most the share `max_empty` is marked as empty, judged at _PROBE x _PROBE points of each."""
    from rasterio.enums import MaskFlags
    from rasterio.windows import Window

    if all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums):
        return list(grid)
    kept = list[GridTile]()
    for tile in track(grid, "Looking for empty tiles", len(grid)):
        window = Window(tile.column, tile.row, tile.width, tile.height)
        shape = (min(_PROBE, tile.height), min(_PROBE, tile.width))
        with _gdal(DataError, f"{path} cannot be read: truncated or corrupt. Get it again."):
            mask = dataset.dataset_mask(window=window, out_shape=shape)
        if np.mean(mask == 0) <= max_empty:
            kept.append(tile)
    return kept


def _tile(path: Path, tile: GridTile, pixels: int | None) -> Tile:
    window = [tile.column, tile.row, tile.width, tile.height]
    return Tile(
        id=f"{path.name}#{','.join(map(str, window))}",
        file=str(path),
        lat=tile.lat,
        lon=tile.lon,
        heading=tile.heading,
        metres_per_pixel=tile.metres / (pixels or max(tile.width, tile.height)),
        more={"window": window, **({"flipped": True} if tile.flipped else {})},
    )


def _crs_name(crs: Any) -> str:
    with _gdal(DataError, f"{crs} is not a reference system that can be understood."):
        authority = crs.to_authority()
    return ":".join(authority) if authority else "a reference system of its own"
