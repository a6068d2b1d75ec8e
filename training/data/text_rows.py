"""Lines of a text file with their numbers, whatever program wrote it."""

from pathlib import Path

from geodtr.runtime.errors import DataError


def read_words(path: Path) -> list[tuple[int, list[str]]]:
    """The words of all lines that have any, each line with its number; a byte-order mark is dropped.

    Raises DataError when the file is not text in UTF-8, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({error}).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    # Not splitlines(), which also breaks at characters that are no line's end to anybody else.
    rows = ((number, line.split()) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, words) for number, words in rows if words]
