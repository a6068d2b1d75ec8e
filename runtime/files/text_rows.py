"""Rows of text files, read with their line numbers and without a byte-order mark, and CSV files written.

Text that a spreadsheet would evaluate is marked when it is written, and read back unchanged.
"""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.foreign_text import as_cell, from_cell


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """All rows of `csv_rows`, for files that are small."""
    return list(csv_rows(path))


def csv_rows(path: Path, most: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """All rows that are not empty, cells stripped, each with its line number in the file, as they are read.

    Raises DataError when the file is not a CSV in UTF-8, cannot be read, or has more than `most` rows below its header.
    """
    count = 0
    with _explained(path, "a CSV"), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for row in reader:
            if row:
                count += 1
                if most is not None and count > most + 1:
                    raise DataError(f"{path} has more than {most:,} rows. Split it.")
                yield reader.line_num, [from_cell(cell.strip()) for cell in row]


@contextmanager
def new_csv(path: Path) -> "Iterator[RowWriter]":
    """A CSV in UTF-8 to write; bytes of file names that are not UTF-8 are written as they are."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield RowWriter(file)


class RowWriter:
    """Writes rows whose text no spreadsheet evaluates (`as_cell`); `csv_rows` gives it back as it was."""

    def __init__(self, file: IO[str]) -> None:
        self._writer: Any = csv.writer(file, lineterminator="\n")

    def write(self, row: Iterable[object]) -> None:
        """Write one row."""
        self._writer.writerow(map(as_cell, row))


def read_words(path: Path) -> list[tuple[int, list[str]]]:
    """The words of all lines that have any, each line with its number.

    Raises DataError when the file is not text in UTF-8, or cannot be read.
    """
    with _explained(path, "text"):
        text = path.read_text(encoding="utf-8-sig")
    # Not splitlines(), which also breaks at characters that are no line's end to anybody else.
    rows = ((number, line.split()) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, words) for number, words in rows if words]


@contextmanager
def _explained(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not {kind} in UTF-8 ({error}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
