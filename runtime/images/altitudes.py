"""The altitude of each frame, from a CSV: the columns `file`, relative to the CSV's folder, and `altitude`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os.path import realpath
from pathlib import Path

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.files.text_rows import by_column, csv_rows
from geodtr.runtime.images.frames import Frame

HIGHEST = 20_000
"""Metres above the ground that are taken for an altitude."""
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Altitudes:
    """Metres above the ground by the absolute path of each frame that `file` lists; None where its cell is empty."""

    file: Path
    metres: Mapping[str, float | None]

    def of(self, frame: Frame) -> Frame:
        """The frame with its altitude. One that has none yields an error; unless it has an altitude of its own."""
        path = _named(Path(frame.name))
        metres = self.metres.get(path)
        if metres is not None:
            return replace(frame, altitude=metres)
        if frame.altitude is not None or isinstance(frame.image, ImageError):
            return frame
        lacks = f"leaves the altitude of {frame.name} empty" if path in self.metres else f"has no row for {frame.name}"
        return replace(frame, image=ImageError(f"{self.file} {lacks}. Add it, or leave it out: --on-error skip"))


def read_altitudes(path: Path) -> Altitudes:
    """Read the CSV. Raises DataError, naming the line, when a column is missing, a value is not above 0 and at most
    HIGHEST, or a file is named twice with different ones.
    """
    rows = csv_rows(path, _MOST)
    _, header = next(rows, (0, []))
    missing = [name for name in ("file", "altitude") if name not in header]
    if missing:
        raise DataError(f"{path} has no column {' and '.join(missing)}: needed are file and altitude (metres).")
    altitudes = dict[str, float | None]()
    for where, cells in by_column(rows, header, str(path)):
        file, metres = cells["file"], _metres(cells["altitude"], where)
        if altitudes.setdefault(_named(path.parent / file), metres) != metres:
            raise DataError(f"{where}: {file} has another altitude in a line before. Leave one of them out.")
    return Altitudes(path, altitudes)


def _metres(cell: str, where: str) -> float | None:
    if cell == "":
        return None
    try:
        metres = float(cell)
    except ValueError:
        metres = float("nan")
    if not 0 < metres <= HIGHEST:
        raise DataError(
            f"{where}: the altitude is {cell[:40]!r}; needed are metres above ground, above 0, at most {HIGHEST:,}; "
            "or nothing where it is unknown."
        )
    return metres


def _named(path: Path) -> str:
    """The same for every way to write the path of a file."""
    return realpath(path) if "\0" not in str(path) else str(path)  # Path.resolve raises where links go in a circle
