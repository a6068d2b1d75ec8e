"""Strategies that damage files and documents: bytes that differ, text and values that cannot be."""

import csv
import io
import json
import re
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_WRONG: list[object] = [
    *(None, True, 0, -1, 3, 2**31, 2**63, -(2**63), 10**30, 0.5, -1e308, 1e308),
    *("", "x", "../x", "a\0b", "\ud800", [], {}),
]
VALUES: st.SearchStrategy[object] = st.sampled_from(_WRONG) | st.text(max_size=5)
"""Values of a JSON document."""

NUMBERS = ("0", "-1", "1e400", "nan", "-inf", "1e308", "-1e300", "9" * 40, "91", "181", "1_0")
CELLS = st.sampled_from([*NUMBERS, "", "a\0b", "../x", "é", '"']) | st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=5
)
"""Cells of a table, words of a text."""

_SIZES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_WORDS = tuple(struct.pack(order, size) for order in ("<I", ">I") for size in _SIZES)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def places_in(document: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to every value of a JSON document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [here, *(place for key, value in inner for place in places_in(value, (*here, key)))]


@st.composite
def changed_json(draw: st.DrawFn, content: str) -> str:
    """A document with one value replaced or removed."""
    document = [json.loads(content)]
    place = draw(st.sampled_from(places_in(document)[1:]))
    holder: Any = document
    for key in place[:-1]:
        holder = holder[key]
    if draw(st.booleans()) and len(place) > 1:
        del holder[place[-1]]
    else:
        holder[place[-1]] = draw(VALUES)
    return json.dumps(document[0])


@st.composite
def changed_table(draw: st.DrawFn, content: str) -> bytes:
    """A CSV with up to three cells replaced."""
    rows = list(csv.reader(io.StringIO(content)))
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(CELLS)
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "replace")


@st.composite
def changed_text(draw: st.DrawFn, content: str, words: Sequence[str] = ()) -> bytes:
    """A text with up to three of its numbers, or any of `words`, replaced, and perhaps a line that comes twice."""
    for _ in range(draw(st.integers(1, 3))):
        found = [match.span() for match in _NUMBER.finditer(content)]
        found += [match.span() for word in words for match in re.finditer(re.escape(word), content)]
        if found:
            start, end = draw(st.sampled_from(found))
            content = content[:start] + draw(CELLS) + content[end:]
    if draw(st.integers(0, 9)) == 0:
        lines = content.splitlines(keepends=True)
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines)))
        content = "".join(lines)
    return content.encode("utf-8", "replace")


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, head: int = 512) -> bytes:
    """A file of which bits are flipped, bytes replaced, inserted, left out or repeated, or the end is missing.

    Half of the damage is in the first `head` bytes, which hold sizes and offsets.
    """
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        near = min(draw(st.sampled_from([head, len(content)])), len(content))
        at = draw(st.integers(0, near - 1))
        kind = draw(st.sampled_from(["flip", "flip", "word", "word", "junk", "insert", "leave out", "repeat", "cut"]))
        length = draw(st.integers(1, 64)) if kind in ("leave out", "repeat") else 0
        if kind == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "word":
            word = draw(st.sampled_from(_WORDS))
            content[at : at + len(word)] = word
        elif kind == "junk":
            junk = draw(st.binary(min_size=1, max_size=8))
            content[at : at + len(junk)] = junk
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "leave out":
            del content[at : at + length]
        elif kind == "repeat":
            content[at:at] = content[at : at + length]
        else:
            del content[at:]
    return bytes(content)
