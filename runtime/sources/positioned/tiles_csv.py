"""The list of a folder's tiles, `tiles.csv`: a row a tile, paths relative to the folder.

Header: file, and any of lat, lon (both or neither) or two or four corners, heading, metres_per_pixel, id; other columns
are kept as they are. Names are matched regardless of case, spaces and the usual spellings.
"""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import product
from math import isfinite
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import by_column, read_csv
from geodtr.runtime.sources.positioned.footprint import EDGES, Corner, Footprint
from geodtr.runtime.sources.tile import Tile, check_position

FILE_NAME = "tiles.csv"

_LATS, _LONS = ("lat", "latitude"), ("lon", "long", "lng", "longitude")
_CORNERS = {
    "above_left": ("top_left", "upper_left", "tl", "ul", "lt", "nw"),
    "above_right": ("top_right", "upper_right", "tr", "ur", "rt", "ne"),
    "below_right": ("bottom_right", "lower_right", "br", "lr", "rb", "se"),
    "below_left": ("bottom_left", "lower_left", "bl", "ll", "lb", "sw"),
}
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "file": ("file", "filename", "file_name", "image", "image_name", "path"),
    "lat": (*_LATS, "center_lat", "centre_lat", "center_latitude", "centre_latitude"),
    "lon": (*_LONS, "center_lon", "centre_lon", "center_longitude", "centre_longitude"),
    "heading": ("heading",),
    "metres_per_pixel": ("metres_per_pixel", "meters_per_pixel", "gsd"),
    "id": ("id",),
    "south": ("south", "min_lat", "lat_min"),
    "west": ("west", "min_lon", "lon_min"),
    "north": ("north", "max_lat", "lat_max"),
    "east": ("east", "max_lon", "lon_max"),
    **{
        f"{corner}_{axis}": tuple("_".join(parts) for parts in product(names, spelled))
        for corner, names in _CORNERS.items()
        for axis, spelled in (("lat", _LATS), ("lon", _LONS))
    },
}
_KNOWN = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_DIAGONALS = (("above_left", "below_right"), ("below_left", "above_right"))


def read_tiles_csv(path: Path, folder: Path) -> tuple[list[Tile], str]:
    """The tiles that `path` lists, in its order, and which column was taken for what; the id of a tile is its row's
    id, or else its file as written there.

    Raises DataError naming the file and line of an error: a header that lacks `file`, half of a position, or gives
    positions in two ways; a value that is no number or out of range; an image that does not exist, or has another shape
    than its corners; a repeated id.
    """
    rows = read_csv(path)
    written = rows[0][1] if rows else []
    header = _header(written, path)
    tiles, lines = list[Tile](), dict[str, str]()
    for where, cells in by_column(rows[1:], header, str(path)):
        tile = _tile(cells, folder, where)
        if tile.id in lines:
            raise DataError(f"{where}: the id {tile.id} is also in {lines[tile.id]}. Give each tile its own.")
        lines[tile.id] = where.rpartition(", ")[2]
        tiles.append(tile)
    if not tiles:
        raise DataError(f"{path} lists no tiles. Give each a row, with the columns {', '.join(written)}.")
    understood = ", ".join(
        f"{name} by {spelled!r}" for name, spelled in zip(header, written, strict=True) if name in _SPELLINGS
    )
    return tiles, understood


def _header(written: Sequence[str], path: Path) -> list[str]:
    """The columns by our names where they are known, else as they are written."""
    header = [_KNOWN.get(re.sub(r"[\s_.-]+", "_", name.strip().lower()), name) for name in written]
    if "file" not in header or ("lat" in header) != ("lon" in header):
        raise DataError(
            f"{path} has the columns {', '.join(written) or '(none)'}; needed are file and, for positions, "
            "both lat and lon, or corners (top_left_lat, top_left_lon, bottom_right_lat, bottom_right_lon), or south, "
            "west, north and east; known besides: heading, metres_per_pixel, id."
        )
    doubled = {name for name in header if header.count(name) > 1}
    if doubled:
        raise DataError(f"{path} names the columns {', '.join(sorted(doubled))} twice. Rename or remove one of each.")
    edges = [name for name in EDGES if name in header]
    corners = [name for name in _CORNERS if f"{name}_lat" in header or f"{name}_lon" in header]
    half = [name for name in corners if not (f"{name}_lat" in header and f"{name}_lon" in header)]
    if half or (0 < len(edges) < 4) or (corners and not any(set(pair) <= set(corners) for pair in _DIAGONALS)):
        raise DataError(
            f"{path} gives {', '.join((*edges, *corners))}, which is no whole footprint. Needed are latitude and "
            "longitude of two opposite corners or of all four, or south, west, north and east."
        )
    ways = [name for name, given in (("a centre", "lat" in header), ("edges", edges), ("corners", corners)) if given]
    if len(ways) > 1:
        raise DataError(f"{path} gives positions by {' and by '.join(ways)}. Leave out the columns of one.")
    return header


def _tile(values: Mapping[str, str], folder: Path, where: str) -> Tile:
    if not values["file"]:
        raise DataError(f"{where}: file is empty. Name the tile's image, relative to {folder}.")
    file = folder / values["file"]
    if not os.path.isfile(file):  # noqa: PTH113 (Path.is_file raises at a name that is too long for the disk)
        raise DataError(f"{where}: {file} does not exist. Paths are relative to {folder}.")
    lat, lon, heading, scale = (_number(values, name, where) for name in ("lat", "lon", "heading", "metres_per_pixel"))
    if (lat is None) != (lon is None):
        raise DataError(f"{where}: give both lat and lon of {values['file']}, or neither.")
    if scale is not None and not (isfinite(scale) and scale > 0):
        raise DataError(f"{where}: metres_per_pixel is {scale:g}; it must be above 0.")
    place = check_position(lat or 0, lon or 0, where, heading)
    footprint = _footprint(values, where)
    at = place if footprint is None else footprint.position(file, where)
    positioned = footprint is not None or lat is not None
    return Tile(
        id=values.get("id") or values["file"],
        file=str(file),
        lat=at.lat if positioned else None,
        lon=at.lon if positioned else None,
        heading=at.heading if place.heading is None else place.heading,
        metres_per_pixel=at.metres_per_pixel if scale is None else scale,
        more={name: value for name, value in values.items() if name not in _SPELLINGS and value},
    )


def _footprint(values: Mapping[str, str], where: str) -> Footprint | None:
    """By the edges or corners in a row; None where it has no such columns, or all of their cells are empty."""
    edges = {name: _number(values, name, where) for name in EDGES if name in values}
    corners = {name: _corner(values, name, where) for name in _CORNERS if f"{name}_lat" in values}
    given = [*edges.values(), *corners.values()]
    if all(each is None for each in given):
        return None
    if any(each is None for each in given):
        raise DataError(f"{where}: give all corners of {values['file']}, or none.")
    if edges:
        return Footprint.north_up(**{name: edge for name, edge in edges.items() if edge is not None}, where=where)
    known = {name: corner for name, corner in corners.items() if corner is not None}
    if len(known) == 4:
        return Footprint(**known)
    if set(_DIAGONALS[0]) <= set(known):
        (north, west), (south, east) = known["above_left"], known["below_right"]
    else:
        (south, west), (north, east) = known["below_left"], known["above_right"]
    return Footprint.north_up(south, west, north, east, where)


def _corner(values: Mapping[str, str], name: str, where: str) -> Corner | None:
    lat, lon = _number(values, f"{name}_lat", where), _number(values, f"{name}_lon", where)
    if lat is None and lon is None:
        return None
    if lat is None or lon is None:
        raise DataError(f"{where}: give both latitude and longitude of a corner of {values['file']}.")
    at = check_position(lat, lon, where)
    return at.lat, at.lon


def _number(values: Mapping[str, str], name: str, where: str) -> float | None:
    """None where the column is absent or the cell empty."""
    text = values.get(name, "")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: {name} is {text!r}; a number is needed.") from None
