"""The documentation is correct: its Python runs, its commands exist, and its site builds without a network."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from checkout import ROOT
from cli_page import commands, page
from maps import UTM, picture, write_map
from rasterio import Affine
from tensorrt_on_fakes import Model
from tiny_world import TinyWorld, write_drive

import geodtr

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
SNIPPETS = {
    f"{Path(name).name}, {number}": snippet
    for name, text in PAGES.items()
    # These need a trained run and a pytest of their own: test_parity.py, test_pytest_plugin.py, test_howto.py.
    if Path(name).name not in {"parity.md", "ci.md"}
    for number, snippet in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S), 1)
}
OF_THE_PROGRAM = {"--help", "--version", "--install-completion"}
OF_DOCKER = {"--build-arg", "--user", "--memory"}
OF_OTHERS = {"--cpus", "--gpus", "--dry-run", "--geodtr-report", "--seconds", "--system-site-packages"}
"""Options of the examples, the benchmarks, the tools, pytest and Python's venv."""


def lines_of(text: str) -> list[str]:
    """The command lines of a page: in indented blocks, with continuation lines, and in running text."""
    blocks = re.findall(r"^    +(geodtr-export .*)$", re.sub(r" *\\\n +", " ", text), re.M)
    return [*blocks, *(" ".join(line.split()) for line in re.findall(r"`(geodtr-export [^`]+)`", text))]


def commanded(line: str) -> tuple[typer.core.TyperCommand, list[str]]:
    """The command that a line calls, and its arguments."""
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..." and not word.startswith("[")]
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in commands():
            return commands()[name], words[length:]
    pytest.fail(f"{line}: there is no such command")


@pytest.fixture(scope="module")
def folder(tiny: TinyWorld, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("bundle", "engine"):
        shutil.copytree(tiny.bundle, folder / name)
    shutil.copytree(tiny.gallery, folder / "map")
    shutil.copytree(tiny.gallery.parent / "tiles", folder / "demo" / "world" / "test" / "aerial")
    tiny.photograph(folder / "demo" / "world" / "test" / "ground" / "000000.png", 0)
    for row in range(9):
        tiny.photograph(folder / "images" / f"{row}.png", row)
    tiny.photograph(folder / "street.png", 3)
    tiny.photograph(folder / "flight" / "frames" / "000000.png", 3)
    write_drive(tiny, folder)
    (folder / "run").mkdir()
    shutil.copy(model.checkpoint, folder / "run" / "last.safetensors")
    shutil.copytree(folder / "run", folder / "demo" / "run")
    write_map(folder / "ortho.tif", picture(300, 300), UTM, Affine(0.5, 0, 600_000, 0, -0.5, 5_330_000))
    return folder


def test_the_documentation_contains_python() -> None:
    pages = {name.partition(",")[0] for name in SNIPPETS}
    assert {"README.md", "engines.md", "embedding.md", "galleries.md", "localisation.md"} <= pages


@pytest.mark.parametrize("name", SNIPPETS)
def test_python_of_the_documentation_runs(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    exec(compile(SNIPPETS[name], name, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


def test_the_command_line_reference_matches_the_commands() -> None:
    assert PAGES["docs/cli.md"] == page(), "run: make docs"


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if name != "docs/cli.md" and lines_of(text)])
def test_every_command_line_can_be_parsed(name: str) -> None:
    for line in lines_of(PAGES[name]):
        if line in {"geodtr-export --version", "geodtr-export --install-completion"}:
            continue  # of the command without a command
        command, arguments = commanded(line)
        context = typer.Context(command)
        given, _, _ = command.make_parser(context).parse_args(arguments)  # raises where an option does not exist
        for parameter in command.params:
            choices: Any = getattr(parameter.type, "choices", None)
            value = given.get(str(parameter.name))
            if choices and isinstance(value, str) and not value.isupper():
                assert value in {str(getattr(one, "value", one)) for one in choices}, line


def test_every_option_that_a_page_names_exists() -> None:
    parameters = [one for command in commands().values() for one in command.params]
    existing = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
    for name, text in PAGES.items():
        named = set(re.findall(r"`(--[a-z][a-z0-9-]*)", text))
        unknown = named - existing - OF_THE_PROGRAM - OF_OTHERS - OF_DOCKER
        assert not unknown, (name, unknown)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the site is built by mkdocs: pip install '.[docs]'")
def test_the_site_builds_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    installed = Path(geodtr.__path__[-1]).parent
    line = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "GEODTR_INSTALLED": str(installed), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for html in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*src=\"?(?:https?:)?//[^>]*>", html.read_text())
        loaded += re.findall(r"<link[^>]*rel=\"?stylesheet[^>]*href=\"?(?:https?:)?//[^>]*>", html.read_text())
        assert not loaded, html
    assert "geodtr.runtime.localization.localizer.Localizer.locate" in (tmp_path / "site" / "api.html").read_text()
