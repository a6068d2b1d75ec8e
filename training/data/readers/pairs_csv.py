"""Reader and writer of `pairs:` data sets: a folder with `pairs.csv`, paths relative to the folder.

Header: ground,aerial[,lat,lon[,heading]]. The simplest format for your own images.
"""

from collections.abc import Iterable
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import csv_rows, new_csv
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.existing import existing

FILE_NAME = "pairs.csv"
HEADERS = (("ground", "aerial"), ("ground", "aerial", "lat", "lon"), ("ground", "aerial", "lat", "lon", "heading"))
MAX_PAIRS = 1_000_000
"""They take 1.3 GB of memory."""
_ALLOWED = " or ".join(",".join(header) for header in HEADERS)


def read_pairs(folder: Path) -> PairSet:
    """Read `folder`/pairs.csv. Raises DataError with the file, row and column of the fault."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise DataError(f"{folder} holds no {FILE_NAME}. Add one with the header {_ALLOWED}.")
    rows = csv_rows(path, MAX_PAIRS)
    _, first = next(rows, (0, []))
    header = tuple(first)
    if header not in HEADERS:
        raise DataError(f"{path} has the columns {','.join(header) or '(none)'}; allowed: {_ALLOWED}.")
    pairs = (_pair(folder, header, row, f"{path}, line {line}") for line, row in rows)
    return existing(f"pairs:{folder}", pairs)


def write_pairs(folder: Path, rows: Iterable[tuple[str, str, float, float, float]]) -> Path:
    """Write `folder`/pairs.csv from (ground, aerial, lat, lon, heading) rows with relative paths; return its path."""
    path = folder / FILE_NAME
    with new_csv(path) as table:
        table.write(HEADERS[-1])
        for ground, aerial, lat, lon, heading in rows:
            table.write((ground, aerial, f"{lat:.7f}", f"{lon:.7f}", f"{heading:.2f}"))
    return path


def _pair(folder: Path, header: tuple[str, ...], row: list[str], where: str) -> Pair:
    if len(row) != len(header):
        raise DataError(f"{where}: {len(row)} values, but the header has {len(header)} columns.")
    values = dict(zip(header, row, strict=True))
    lat, lon = _number(values, "lat", 90, where), _number(values, "lon", 180, where)
    if (lat is None) != (lon is None):
        raise DataError(f"{where}: give both lat and lon, or neither.")
    return Pair(
        ground=folder / values["ground"],
        aerial=folder / values["aerial"],
        lat=lat,
        lon=lon,
        heading=_number(values, "heading", 360, where),
    )


def _number(values: dict[str, str], name: str, limit: float, where: str) -> float | None:
    """A coordinate within +-limit; None if the column is absent or the cell is empty."""
    text = values.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {name} is {text!r}; it must be a number of degrees.") from None
    if not abs(value) <= limit:
        raise DataError(f"{where}: {name} is {text}; it must lie within -{limit} and {limit} degrees.")
    return value
