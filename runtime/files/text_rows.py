"""Rows of text files, read with their line numbers and without a byte-order mark, and CSV files written.

Text that a spreadsheet would evaluate is marked when it is written, and the mark removed when it is read.
"""

import csv
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, TextIO

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.foreign_text import as_cell, from_cell
from geodtr.runtime.files.reading import open_to_read

MAX_BYTES = 1 << 30
"""Of a file: a million rows of a thousand bytes."""


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """All rows of `csv_rows`, for files that are small."""
    return list(csv_rows(path))


def csv_rows(path: Path, most: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """The `rows_of` a file, as they are read.

    Raises DataError as `rows_of` does, when the file cannot be read, or has more than `most` rows below its header.
    """
    with open_text(path, newline="") as file:
        for count, row in enumerate(rows_of(file, str(path))):
            if most is not None and count > most:
                raise DataError(f"{path} has more than {most:,} rows. Split it.")
            yield row


def rows_of(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """All rows that are not empty, each with the number of its line, as the lines come; no cell begins or ends with
    space.

    Raises DataError, beginning with `name`, when they are no CSV in UTF-8.
    """
    try:
        reader = csv.reader(lines, skipinitialspace=True)
        for row in reader:
            if reader.line_num == 1 and len(row) == 1 and ";" in row[0]:
                raise DataError(
                    f"{name} separates its columns by semicolons. Save it with commas, and with points in decimals."
                )
            if any("\0" in cell for cell in row):
                raise DataError(f"{name}, line {reader.line_num}, holds a NUL character: it is not text.")
            if row:
                yield reader.line_num, [from_cell(cell).strip() for cell in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} is not a CSV in UTF-8 ({_fault(error)}).") from None


def _fault(error: Exception) -> str:
    """What is wrong with text; a mark of UTF-16, as PowerShell and spreadsheets write it, is named as one."""
    if isinstance(error, UnicodeDecodeError) and error.object.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "it is UTF-16; save it as UTF-8"
    return str(error)


def by_column(
    rows: Iterable[tuple[int, list[str]]], header: Sequence[str], name: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """The cells of each row below a header by the names of their columns, and where the row is, for messages.

    Raises DataError for a row of another length than the header.
    """
    for line, row in rows:
        where = f"{name}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} values where the header names {len(header)}.")
        yield where, dict(zip(header, row, strict=True))


@contextmanager
def new_csv(path: Path) -> "Iterator[RowWriter]":
    """A CSV in UTF-8 to write; bytes of file names that are not UTF-8 are written as they are."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield RowWriter(file)


class RowWriter:
    """Writes rows whose text no spreadsheet evaluates (`as_cell`). `csv_rows` gives it back as it was, but for space
    at its ends, and for bytes that are not UTF-8, which it refuses: of a table in another encoding it would make names.
    """

    def __init__(self, file: IO[str]) -> None:
        self._writer: Any = csv.writer(_Rows(file), lineterminator="\r\n")

    def write(self, row: Iterable[object]) -> None:
        """Write one row."""
        self._writer.writerow(map(as_cell, row))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Ends each row in a line feed. Its writer thinks of CR LF, for it quotes the texts that hold what ends rows."""

    file: IO[str]

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")


def read_words(path: Path) -> list[tuple[int, list[str]]]:
    """The words of all lines that have any, each line with its number. Raises DataError as `read_lines` does."""
    rows = ((number, line.split()) for number, line in enumerate(read_lines(path), start=1))
    return [(number, words) for number, words in rows if words]


def read_lines(path: Path) -> list[str]:
    """All lines without space at their ends. Raises DataError when the file is not text in UTF-8, or cannot be read."""
    try:
        with open_text(path) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({_fault(error)}).") from None
    # Not splitlines(), which also breaks at characters that are no line's end to anybody else.
    return [line.strip() for line in text.split("\n")]


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file of text, or a pipe, without a byte-order mark; `newline` as open() has it. Raises DataError when it cannot
    be read, then or within.
    """
    try:
        with TextIOWrapper(open_to_read(path, MAX_BYTES, pipes=True), "utf-8-sig", newline=newline) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
