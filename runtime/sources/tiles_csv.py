"""The list of a folder's tiles, `tiles.csv`: a row a tile, paths relative to the folder.

Header: file, and any of lat, lon (both or neither), heading, metres_per_pixel, id; other columns are kept as they are.
"""

import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.sources.tile import Tile, check_position
from geodtr.runtime.text_rows import read_csv

FILE_NAME = "tiles.csv"
_KNOWN = ("file", "lat", "lon", "heading", "metres_per_pixel", "id")


def read_tiles_csv(path: Path, folder: Path) -> list[Tile]:
    """The tiles that `path` lists, in its order; the id of a tile is its row's id, or else its file as written there.

    Raises DataError naming the file and line of an error: a header that lacks `file`, or one of lat and lon; a value
    that is no number or out of range; half a position; an image that does not exist; a repeated id.
    """
    rows = read_csv(path)
    header = rows[0][1] if rows else []
    _check_header(header, path)
    tiles, lines = list[Tile](), dict[str, int]()
    for line, row in rows[1:]:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} values where the header names {len(header)}.")
        tile = _tile(dict(zip(header, row, strict=True)), folder, where)
        if tile.id in lines:
            raise DataError(f"{where}: the id {tile.id} is also in line {lines[tile.id]}. Give each tile its own.")
        lines[tile.id] = line
        tiles.append(tile)
    if not tiles:
        raise DataError(f"{path} lists no tiles. Give each a row, with the columns {', '.join(header)}.")
    return tiles


def _check_header(header: list[str], path: Path) -> None:
    if "file" not in header or ("lat" in header) != ("lon" in header):
        raise DataError(
            f"{path} has the columns {', '.join(header) or '(none)'}; needed are file and, for positions, both lat and "
            f"lon; known besides: {', '.join(_KNOWN[3:])}."
        )
    doubled = {name for name in header if header.count(name) > 1}
    if doubled:
        raise DataError(f"{path} names the columns {', '.join(sorted(doubled))} twice. Rename or remove one of each.")


def _tile(values: Mapping[str, str], folder: Path, where: str) -> Tile:
    if not values["file"]:
        raise DataError(f"{where}: file is empty. Name the tile's image, relative to {folder}.")
    file = folder / values["file"]
    if not os.path.isfile(file):  # noqa: PTH113 (Path.is_file raises at a name that is too long for the disk)
        raise DataError(f"{where}: {file} does not exist. Paths are relative to {folder}.")
    lat, lon, heading, scale = (_number(values, name, where) for name in _KNOWN[1:5])
    if (lat is None) != (lon is None):
        raise DataError(f"{where}: give both lat and lon of {values['file']}, or neither.")
    if scale is not None and not (isfinite(scale) and scale > 0):
        raise DataError(f"{where}: metres_per_pixel is {scale:g}; it must be above 0.")
    place = check_position(lat or 0, lon or 0, where, heading)
    return Tile(
        id=values.get("id") or values["file"],
        file=str(file),
        lat=None if lat is None else place.lat,
        lon=None if lon is None else place.lon,
        heading=place.heading,
        metres_per_pixel=scale,
        more={name: value for name, value in values.items() if name not in _KNOWN and value},
    )


def _number(values: Mapping[str, str], name: str, where: str) -> float | None:
    """None where the column is absent or the cell empty."""
    text = values.get(name, "")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: {name} is {text!r}; a number is needed.") from None
