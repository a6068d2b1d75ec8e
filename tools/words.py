"""Check prose and names against the words to avoid in tools/words.txt: python tools/words.py PATH...

Reads the Python, Markdown, TOML and C files in each PATH, comments, strings and code alike. Prints `file:line: word ->
suggestion` for each match and exits with 1 if there is one. A line is exempt if it contains `words: exempt (REASON)`.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

WORDS = Path(__file__).with_suffix(".txt")
SUFFIXES = {".py", ".md", ".toml", ".c"}
EXEMPT = re.compile(r"words: exempt \(\S.*\)")

Rules = Sequence[tuple[re.Pattern[str], str]]


def main(*paths: str) -> int:
    rules = read_rules(WORDS)
    faults = [fault for path in paths for file in text_files(Path(path)) for fault in check(file, rules)]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


def read_rules(path: Path) -> Rules:
    """Each pattern with its suggestion. A space in a pattern matches a line break and a comment's `#` as well."""
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [line.split(" -> ") for line in lines if line and not line.startswith("#")]
    flags = re.IGNORECASE | re.MULTILINE
    return [(re.compile(pattern.replace(" ", r"[\s#]+"), flags), suggestion) for pattern, suggestion in entries]


def text_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)


def check(file: Path, rules: Rules) -> Iterator[str]:
    """One message for each match, in the order of the rules."""
    text = file.read_text(encoding="utf-8")
    lines, words = text.splitlines(), text.replace("_", " ")
    for pattern, suggestion in rules:
        for match in pattern.finditer(words):
            phrase = " ".join(match[0].replace("#", " ").split())
            line = words.count("\n", 0, match.start() + len(match[0]) - len(match[0].lstrip())) + 1
            if not EXEMPT.search(lines[line - 1]):
                yield f"{file}:{line}: {phrase} -> {suggestion}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
