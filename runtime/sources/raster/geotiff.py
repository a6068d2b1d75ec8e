"""A map in one file, cut into tiles of a ground size. Needs rasterio (extra `geo`)."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.geodesy import Values, wrapped
from geodtr.runtime.images.decode import Decoded
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.sources.raster.bands import Bands, choose_bands
from geodtr.runtime.sources.raster.cut import LARGEST_TILE, GeoTiffOptions, MapCut
from geodtr.runtime.sources.raster.empty import black_share, find_marks
from geodtr.runtime.sources.raster.gdal import gdal, open_map
from geodtr.runtime.sources.raster.grid import Grid, is_sheared, joined, lay_out
from geodtr.runtime.sources.raster.warp import conformal_system, warp
from geodtr.runtime.sources.tile import Tile

SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".j2k"})
"""A .vrt is GDAL's list of the sheets that make one map (gdalbuildvrt)."""

LARGEST_WINDOW = 16_384
"""Pixels a side that are read for one tile, at most: three bands of them are 800 MB, which GDAL reads in pieces."""

_CORRUPT = "{path} cannot be read: truncated or corrupt. Get it again."
_BLACK_WORTH_SAYING = 0.02

_PIECE = 100_000


@dataclass(frozen=True)
class GeoTiff:
    """A TileSource over a map. Reading is safe from threads: each has a handle of its own, which ends with it.

    `warped_to` is the reference system into which the map is warped while it is read, None where it is read as it is.
    """

    path: Path
    tiles: Sequence[Tile]
    notes: tuple[str, ...]
    bands: Bands
    warped_to: str | None = None
    _handles: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["GeoTiff"], tuple[Any, ...]]:
        """Handles stay behind when it is sent to another process."""
        return GeoTiff, (self.path, self.tiles, self.notes, self.bands, self.warped_to)

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self, tile: Tile) -> Decoded:
        """The tile, rotated to its `heading`; if it is drawn in other pixels than the map's, resampled bilinearly
        with antialiasing, from overviews where the map has them.

        Raises ImageError naming the map and the window that cannot be read.
        """
        from rasterio.enums import Resampling
        from rasterio.windows import Window

        window = tile.more["window"]
        side = tile.more.get("pixels") or max(window[2:])
        how = Resampling.nearest if self.bands.palette is not None else Resampling.bilinear
        with gdal(ImageError, f"{tile.id} cannot be read from {self.path}: truncated or corrupt. Get it again."):
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
                dataset = open_map(self.path)
            except DataError as error:
                raise ImageError(str(error)) from None
            self._handles.dataset = dataset if self.warped_to is None else warp(dataset, self.warped_to, self.bands)
        return self._handles.dataset


def open_geotiff(path: Path, options: GeoTiffOptions, *, track: Track = untracked) -> GeoTiff:
    """Cut the map `path` into tiles, whose ids are its name and their windows in pixels (column, row, width, height).

    A map whose rows and columns are not at right angles on the ground is warped while it is read; its windows are in
    the warped map. Only where the map marks some of its pixels as empty is it read here, thinned out. Raises
    DataError when the file is no map, has no position or no values that make a picture, when a tile is too large to be
    read, or when no tile is left; ConfigError for bands that it does not have; MissingDependency without rasterio.
    """
    dataset = open_map(path)
    # All of it: GDAL reads some of a map's tags only when they are asked for.
    with gdal(DataError, _CORRUPT.format(path=path)):
        _check_georeferenced(dataset, path)
        bands = choose_bands(dataset, options.bands, options.stretch, str(path))
        notes = [f"{path.name} is {dataset.width} x {dataset.height} pixels in {_crs_name(dataset.crs)}."]
        warped_to = _warped_to(dataset, path)
        if warped_to is not None:
            dataset = warp(dataset, warped_to, bands)
            notes.append(
                "Its rows and columns are not at right angles on the ground: it is warped while it is read, and what "
                "lies beyond its edges has no data."
            )
        locate = partial(_locate, dataset, path)
        try:  # the tiles of each size behind the tiles of the one before
            grid = joined([lay_out(dataset.width, dataset.height, locate, *cut) for cut in options.cuts])
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        _check_readable(dataset, path, grid, options.tile_pixels)
        if options.tile_pixels is None and max(grid.width.max(), grid.height.max()) > LARGEST_TILE:
            notes.append(f"Tiles are drawn in {LARGEST_TILE} pixels a side, fewer than the map has.")
        marks = find_marks(dataset, bands, options.nodata)
        with gdal(DataError, _CORRUPT.format(path=path)):
            kept = grid[marks.empty_shares(dataset, grid, track) <= options.max_empty] if marks else grid
            black = black_share(dataset, bands, marks)
        if not len(kept):
            raise DataError(
                f"{path}: each of {len(grid)} tiles is more than {options.max_empty:.0%} empty. Allow more: "
                "--max-empty 0.9"
            )
        if len(kept) < len(grid):
            notes.append(
                f"{len(grid) - len(kept)} of {len(grid)} tiles are left out: more than {options.max_empty:.0%} of each "
                "has no data."
            )
        if black > _BLACK_WORTH_SAYING:
            notes.append(
                f"Some {black:.0%} of it is plain black and not marked as without data, so that tiles of it are kept. "
                "Leave them out: --nodata 0"
            )
        dataset.close()
    given = {"bands": options.bands, "stretch": options.stretch}
    drawn = {name: list(values) for name, values in given.items() if values is not None}
    return GeoTiff(path, MapCut(path, kept, options.tile_pixels, drawn), tuple(notes), bands, warped_to)


def reopen_geotiff(
    path: Path, bands_asked: tuple[int, ...] | None = None, stretch: tuple[float, float] | None = None
) -> GeoTiff:
    """The map `path` for reading tiles that were cut before, with the bands and the stretch that were asked for then.

    Raises DataError when it cannot be read any more, ConfigError when it needs options to be drawn.
    """
    dataset = open_map(path)
    with gdal(DataError, _CORRUPT.format(path=path)):
        bands = choose_bands(dataset, bands_asked, stretch, str(path))
        warped_to = _warped_to(dataset, path)
        dataset.close()
    return GeoTiff(path, (), (), bands, warped_to)


def _warped_to(dataset: Any, path: Path) -> str | None:
    """The system into which a map is warped, None where its rows and columns are at right angles."""
    locate = partial(_locate, dataset, path)
    if not is_sheared(dataset.width, dataset.height, locate):
        return None
    lat, lon = locate(np.array([dataset.width / 2]), np.array([dataset.height / 2]))
    return conformal_system(float(lat[0]), float(lon[0]))


def _check_georeferenced(dataset: Any, path: Path) -> None:
    if dataset.gcps[0] or (dataset.crs is None and dataset.rpcs):
        raise DataError(
            f"{path} gives control points in place of a position for each pixel. Warp it first, for example: "
            f"gdalwarp -dstalpha -t_srs EPSG:3857 {quote(str(path))} NEW.tif"
        )
    if dataset.crs is None:
        raise DataError(
            f"{path} does not say in which coordinate reference system it is. If you know it: "
            f"rio edit-info --crs EPSG:CODE {quote(str(path))}"
        )
    to_map = dataset.transform
    # A world file may say anything, infinity included; no reference system has places a million kilometres apart.
    if to_map.is_identity or to_map.is_degenerate or not all(abs(value) < 1e9 for value in to_map):
        raise DataError(f"{path} does not say where its pixels lie: its geotransform is missing or void.")


def _locate(dataset: Any, path: Path, columns: Values, rows: Values) -> tuple[Values, Values]:
    """As `grid.Locate`, by the map's own reference system."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    to_map = dataset.transform
    x, y = to_map.a * columns + to_map.b * rows + to_map.c, to_map.d * columns + to_map.e * rows + to_map.f
    with gdal(DataError, f"{path} cannot be brought from {_crs_name(dataset.crs)} to WGS 84."):
        # In pieces, for rasterio makes lists of them.
        pieces = [
            transform(dataset.crs, CRS.from_epsg(4326), x[start : start + _PIECE], y[start : start + _PIECE])
            for start in range(0, len(x), _PIECE)
        ]
        lon, lat = (np.concatenate([np.asarray(piece[axis]) for piece in pieces]) for axis in (0, 1))
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise DataError(f"{path} reaches beyond what {_crs_name(dataset.crs)} can express. Cut it smaller first.")
    return lat, np.where(np.abs(lon) > 180, wrapped(lon), lon)


def _check_readable(dataset: Any, path: Path, grid: Grid, asked: int | None) -> None:
    """Raise DataError when a tile needs too many of the map's pixels."""
    largest = int(max(grid.width.max(), grid.height.max()))
    drawn = asked or (LARGEST_TILE if largest > LARGEST_TILE else None)
    thinned = largest / drawn if drawn else 1.0
    overview = max((factor for factor in dataset.overviews(1) if factor <= thinned), default=1)
    if largest / overview > LARGEST_WINDOW:
        raise DataError(
            f"{path}: a tile would be {largest:,} pixels of the map wide; up to {LARGEST_WINDOW:,} are read for one. "
            f"Ask for a smaller --tile-metres, or build overviews: rio overview --build auto {quote(str(path))}"
        )


def _crs_name(crs: Any) -> str:
    with gdal(DataError, f"{crs} is not a reference system that can be understood."):
        authority = crs.to_authority()
    return ":".join(authority) if authority else "a reference system of its own"
