"""The word check finds the words to avoid in text and in names, and accepts usual English."""

import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

WORDS = ROOT / "tools" / "words.py"


def check(folder: Path) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, WORDS, folder], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ('"""Files are measured anew."""', 1, "anew"),  # words: exempt (planted)
        ("x = 1\n# The caller is told.", 2, "told"),  # words: exempt (planted)
        ('raise ValueError("The manifest says nothing.")', 1, "says"),  # words: exempt (planted)
        ("def measure_anew() -> None: ...", 1, "anew"),  # words: exempt (planted)
        ("x = 1\nfound = search(1)", 2, "found ="),
        ("row, found = search(1)", 1, "row, found ="),
        ('"""\nThe size is that\nof the other one.\n"""', 2, "that of"),  # words: exempt (planted)
        ("# It is for whoever\n# opens it, as it\n# likes.", 2, "as it likes"),  # words: exempt (planted)
    ],
)
def test_each_kind_of_text_is_checked(tmp_path: Path, text: str, line: int, word: str) -> None:
    (tmp_path / "planted.py").write_text(text + "\n")
    code, faults = check(tmp_path)
    assert code == 1
    assert any(fault.startswith(f"planted.py:{line}: {word} -> ") for fault in faults), faults


def test_markdown_in_folders_below_is_checked(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    text = "# Page\n\nThe file lies beside it, whatever it is.\n"  # words: exempt (planted)
    (tmp_path / "docs" / "page.md").write_text(text)
    code, faults = check(tmp_path)
    assert code == 1
    places = [fault.split(" -> ")[0] for fault in faults]
    assert places == ["docs/page.md:3: whatever", "docs/page.md:3: file lies"]  # words: exempt (planted)


def test_usual_english_passes(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        '"""A point lies in the interval. However, the turn is one of those that follow, such as this."""\n'
        "# The median was found in 3 rows.\n"
        "if found == 1 and report.made is None:\n"
        "    hits, has_found = search(found=1), True\n"
    )
    (tmp_path / "other.bin").write_text("anew")  # words: exempt (planted)
    assert check(tmp_path) == (0, [])


def test_a_line_is_exempt_only_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "quote.md").write_text(
        "Quoted: anew <!-- words: exempt (a quotation) -->\nQuoted: anew <!-- words: exempt () -->\n"
    )
    code, faults = check(tmp_path)
    assert code == 1
    assert [fault.split(" -> ")[0] for fault in faults] == ["quote.md:2: anew"]  # words: exempt (planted)
