"""The altitude of each frame, from a CSV: the columns `file`, relative to the CSV's folder, and `altitude`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.text_rows import csv_rows
from geodtr.runtime.images.frames import Frame

_MOST = 1_000_000


def read_altitudes(path: Path) -> dict[str, float]:
    """Metres above the ground by the absolute path of each frame; frames whose cell is empty are left out.

    Raises DataError, naming the line, when a column is missing or a value is not above 0.
    """
    rows = csv_rows(path, _MOST)
    _, header = next(rows, (0, []))
    missing = [name for name in ("file", "altitude") if name not in header]
    if missing:
        raise DataError(f"{path} has no column {' and '.join(missing)}: needed are file and altitude (metres).")
    file, altitude = header.index("file"), header.index("altitude")
    altitudes = dict[str, float]()
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} values where the header names {len(header)}.")
        if row[altitude] == "":
            continue
        try:
            metres = float(row[altitude])
        except ValueError:
            metres = float("nan")
        if not (metres > 0 and isfinite(metres)):
            raise DataError(
                f"{path}, line {line}: the altitude is {row[altitude][:40]!r}; needed are metres above the ground, "
                "above 0, or nothing where it is unknown."
            )
        altitudes[_named(path.parent / row[file])] = metres
    return altitudes


def with_altitudes(frames: Iterable[Frame], altitudes: Mapping[str, float]) -> Iterator[Frame]:
    """The frames, in order, each with its altitude where it is listed."""
    return (replace(frame, altitude=altitudes.get(_named(Path(frame.name)), frame.altitude)) for frame in frames)


def _named(path: Path) -> str:
    """The same for every way to write the path of a file."""
    return str(path.resolve())
