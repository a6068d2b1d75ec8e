"""Rows of a CSV with their line numbers, whatever program wrote it."""

import csv
from pathlib import Path

from geodtr.runtime.errors import DataError


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """All rows that are not empty, cells stripped, each with its line number in the file; a byte-order mark is dropped.

    Raises DataError when the file is not a CSV in UTF-8, or cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8 ({error}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
