"""Rows of a text file with their line numbers; any program's line endings are read, a byte-order mark is dropped."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geodtr.runtime.errors import DataError


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """All rows that are not empty, cells stripped, each with its line number in the file.

    Raises DataError when the file is not a CSV in UTF-8, or cannot be read.
    """
    with _explained(path, "a CSV"), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]


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
