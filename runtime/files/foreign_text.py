"""Text that others wrote (file names, ids, keys of documents), made fit to be shown, or to be a cell of a CSV.

Knows strings only. JSON needs none of it: its own escapes keep all.
"""

import re
from unicodedata import category

LONGEST_WORD = 1000
LONGEST_TEXT = 4000
_FORMULA = (*"=+-@\t\r\n", *map(chr, (0xFF1D, 0xFF0B, 0xFF0D, 0xFF20)))  # the latter: full-width = + - @
"""First characters of cells that spreadsheets evaluate. Source: OWASP, CSV injection."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    """`escape_controls` of the text, shortened: a word of more than LONGEST_WORD characters and a text of more than
    LONGEST_TEXT lose their middle.
    """
    if len(text) > LONGEST_WORD:
        text = _shortened(" ".join(_shortened(word, LONGEST_WORD) for word in text.split(" ")), LONGEST_TEXT)
    return escape_controls(text)


def escape_controls(text: str) -> str:
    r"""The text on one line, without a character that a terminal obeys or that hides others.

    Control and format characters (ANSI escapes, bidi controls) and bytes that are not UTF-8 become escapes as in
    Python's strings: `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or category(letter) == "Zs" else escaped(letter) for letter in text)


def escaped(letter: str) -> str:
    """A character as ASCII; a byte that is not UTF-8, which Python keeps as a surrogate, as that byte."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def as_cell(value: object) -> object:
    """A value for a CSV: text that a spreadsheet would evaluate begins with an apostrophe, which `from_cell` removes.

    Text that begins with apostrophes or spaces and then such a character gets one too, so that every text comes back.
    Numbers stay numbers.
    """
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def from_cell(cell: str) -> str:
    """The text that `as_cell` was given."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    bare = text.lstrip(" '")  # some skip spaces
    return bare.startswith(_FORMULA) and _NUMBER.fullmatch(bare) is None


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 5
    return f"{text[:head]}... ({len(text) - head - tail:,} characters left out) ...{text[-tail:]}"
