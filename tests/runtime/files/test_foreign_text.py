"""What others wrote is shown without harm and read back as it was."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geodtr.runtime.errors import DataError
from geodtr.runtime.files.foreign_text import LONGEST_TEXT, as_cell, escape_controls, from_cell, visible
from geodtr.runtime.files.text_rows import new_csv, read_csv

_UTF8 = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("map.tif", "map.tif"),
        ("Straße 1, 北京", "Straße 1, 北京"),
        ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        ("a\x9b2J", "a\\x9b2J"),
        ("left\u202egnp.exe", "left\\u202egnp.exe"),
        ("two\nlines\r", "two\\nlines\\r"),
        (os.fsdecode(b"caf\xe9.png"), "caf\\xe9.png"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_terminal_obeys_nothing_that_is_shown(text: str, shown: str) -> None:
    assert visible(text) == escape_controls(text) == shown


def test_long_text_keeps_its_beginning_and_its_end() -> None:
    picture = "data:image/jpeg;base64," + "x" * 700_000
    assert escape_controls(picture) == picture, "of a page or a file"
    message = visible(f"manifest.json has the key {'x' * 700_000}. Build the bundle again.")
    assert len(message) < 1500
    assert message.startswith("manifest.json has the key x")
    assert message.endswith("x. Build the bundle again.")
    assert "characters left out" in message
    many = visible("word " * 100_000 + "Build the bundle again.")
    assert len(many) < LONGEST_TEXT + 100
    assert many.endswith("Build the bundle again.")


@given(st.text(max_size=20))
def test_any_text_comes_back_from_a_cell(text: str) -> None:
    assert from_cell(str(as_cell(text))) == text


@given(st.text(max_size=6, alphabet="=+-@\t'1.e "))
def test_text_like_a_formula_comes_back_from_a_cell(text: str) -> None:
    assert from_cell(str(as_cell(text))) == text


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1", "'=1", " =1", " '=1"])
def test_a_spreadsheet_sees_text_where_a_formula_could_be(text: str) -> None:
    assert as_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-15.5, None, 3, "-15.5", "+3", "-1e-4", "plain", "'quoted'", ""])
def test_numbers_and_plain_text_stay(value: object) -> None:
    assert as_cell(value) == value


def test_a_csv_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [["=HYPERLINK(1)", "a,b", "'-x"], ["-1", "two\nlines", "@"]]
    with new_csv(tmp_path / "a.csv") as table:
        for row in rows:
            table.write(row)
    assert [row for _, row in read_csv(tmp_path / "a.csv")] == rows


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=6, alphabet="=+-@\t'\"1 \n\r,\v") | st.text(_UTF8, max_size=9), min_size=1))
def test_a_csv_gives_back_any_text_but_space_at_its_ends(tmp_path: Path, row: list[str]) -> None:
    with new_csv(tmp_path / "a.csv") as table:
        table.write(["header"])
        table.write(row)
    assert read_csv(tmp_path / "a.csv")[1][1] == [text.strip() for text in row]


def test_what_is_no_file_keeps_no_reader_of_rows_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv") == [], "nobody writes to it"
    out, into = os.pipe()
    os.write(into, b"a,b\n")
    os.close(into)
    assert read_csv(Path(f"/dev/fd/{out}")) == [(1, ["a", "b"])]
    os.close(out)
    for endless, why in (("/dev/zero", "it is not a regular file"), (str(tmp_path), "Is a directory")):
        with pytest.raises(DataError, match=why):
            read_csv(Path(endless))


def test_a_csv_keeps_the_bytes_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with new_csv(tmp_path / "a.csv") as table:
        table.write([os.fsdecode(b"caf\xe9.png")])
    assert (tmp_path / "a.csv").read_bytes() == b"caf\xe9.png\n"
    text = (tmp_path / "a.csv").read_text("utf-8", "surrogateescape")
    assert [os.fsencode(row[0]) for row in csv.reader(io.StringIO(text))] == [b"caf\xe9.png"]
