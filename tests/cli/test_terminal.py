"""What a command prints: whole figures in any width, whole lines in a pipe, and nothing that a terminal obeys."""

import ast
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import ROOT
from conftest import Outcome
from tiny_world import TinyWorld, make_world

from geodtr.cli.console import Speaker, output, show_json
from geodtr.cli.tables import Figures

WIDTHS = (20, 40, 60, 80, 200)
FIGURES = ("3,641", "1,234.5", "12,345", "1.00 x (0.95 to 1.05)", "123.4")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("terminal"), 2)


def printed(width: int | None, name: str = "geodtr-cvusa-int8-a-long-name/bundle") -> str:
    """A table of measurements in a terminal of so many columns; None: in a pipe."""
    console = Speaker(force_terminal=width is not None, width=width, color_system=None, markup=False, emoji=False)
    table = Figures(("", "ms", "p95", "img/s", "x first", "MB"), expendable=("p95", "MB"))
    table.add_row(name, *FIGURES)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_figure_is_whole_or_its_column_is_named_as_left_out(width: int) -> None:
    head, first, *_ = printed(width).splitlines()
    assert head.split(), "at least one figure"
    left_out = " ".join(printed(width).split()).partition("not shown in")[2]
    for name, figure in zip(("ms", "p95", "img/s", "x first", "MB"), FIGURES, strict=True):
        assert figure in first if name in head else name in left_out


def test_the_least_important_columns_go_first() -> None:
    assert "not shown" not in printed(200)
    assert "not shown in 69 columns: p95\n" in printed(69)
    assert "not shown in 60 columns: p95, MB\n" in printed(60)


def test_a_long_name_is_folded_and_not_cut() -> None:
    first = [line.split("  ")[0].strip() for line in printed(80).splitlines()[1:]]
    assert "".join(first) == "geodtr-cvusa-int8-a-long-name/bundle"
    assert min(map(len, first[:-1])) >= 14, "a letter a line"


def test_a_pipe_gets_every_column_in_whole_lines() -> None:
    table = printed(None, "n" * 300)
    assert "n" * 300 in table
    assert all(figure in table for figure in FIGURES)


def test_what_is_printed_is_harmless_by_any_caller() -> None:
    console = Speaker(width=200, color_system=None, markup=False, emoji=False)
    table = Figures(("", "id"))
    table.add_row("a\x1b[2Jb", "c\u202ed")
    with console.capture() as capture:
        console.print("\x1b]0;title\x07", "[bold]:skull:")
        console.print(table)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", capture.get())
    assert "[bold]:skull:" in capture.get()


def test_json_is_harmless_and_lossless(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": "é\x1b\x7f\x9b\u202e\N{GRINNING FACE}", "file": os.fsdecode(b"caf\xe9"), "none": float("nan")}
    show_json(document)
    text = capsys.readouterr().out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    read = json.loads(text)
    assert read == {**document, "none": None}
    assert os.fsencode(read["file"]) == b"caf\xe9"


def test_a_manifest_cannot_flood_the_terminal_or_command_it(
    tiny: TinyWorld, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for key in ("k" * 700_000, "\x1b[2J\x1b]0;owned\x07" * 1000, "\u202e", "many words " * 10_000):
        manifest = json.loads((tiny.bundle / "manifest.json").read_text())
        manifest[key] = 1
        (bundle / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False))
        result = cli("inspect", bundle)
        assert result.code == 2
        assert len(result.err) < 6000
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", result.err)
        assert "doctor" in result.err


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("command", ["info", "verify", "preview", "doctor", "localize"])
def test_commands_cut_nothing_at_any_width(
    tiny: TinyWorld,
    tmp_path: Path,
    width: int,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., Outcome],
) -> None:

    image = tiny.photograph(tmp_path / "street.png", 1)
    lines: dict[str, tuple[object, ...]] = {
        "info": ("gallery", "info", tiny.gallery),
        "verify": ("gallery", "verify", tiny.gallery),
        "preview": ("gallery", "preview", tiny.bundle.parent / "tiles"),
        "doctor": ("doctor", tiny.bundle),
        "localize": ("localize", image, "--bundle", tiny.bundle, "--gallery", tiny.gallery, "--top", 1),
    }
    piped = cli(*lines[command]).out
    monkeypatch.setattr(output, "_force_terminal", True)
    monkeypatch.setattr(output, "_width", width)
    shown = cli(*lines[command]).out
    shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    whole = re.compile(r"(?<!\S)[(-]?\d[\d.,]*(?!\S)")
    assert {*whole.findall(shown.partition("not shown")[0])} <= {*whole.findall(piped)}


def test_no_command_prints_line_ends_within_text() -> None:
    """The console would show them as escapes, because it cannot tell them from a foreign text's."""
    calls = [node for path in (ROOT / "cli").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    printed = [
        ast.unparse(argument)
        for call in calls
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "print"
        for argument in call.args
    ]
    assert len(printed) > 50
    assert [text for text in printed if "\\n" in text] == []


@pytest.mark.parametrize("width", [60, 100])
def test_help_fills_the_lines_of_any_width(
    width: int, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    prose = cli("build-engine", "--help").out.partition("INT8 and FP8")[2].partition("\n \n")[0].split("╭")[0]
    lines = [line.strip() for line in prose.strip().splitlines()]
    assert len(lines) > 4
    for line, following in itertools.pairwise(lines[1:]):
        assert len(line) + 1 + len(following.split()[0]) > width - 2, line
