"""Write the command line reference, docs/cli.md, from the help of the commands.

    python tools/cli_page.py docs/cli.md

tests/project/test_docs.py compares the page with the commands.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup, TyperOption

from geodtr.cli.main import app

HEAD = """# Command line

Written by `make docs` from the help of the commands: do not edit. `geodtr-export` and `python -m geodtr` are the same.
Exit codes: 0 done, 1 a gate was not met, 2 wrong usage or input, 3 a gate is undecided, 130 or 143 interrupted,
141 nobody reads the output any more.
`geodtr-export --version` prints the version, `geodtr-export --install-completion` sets up completion for bash, zsh and
fish.
"""


TAKES = {"IntRange": "N", "FloatRange": "X", "TyperPath": "PATH", "StringParamType": "TEXT"}
"""Placeholder for the value of an option without a metavar, by the type of the option."""


def commands() -> dict[str, TyperCommand]:
    """All commands without groups, by name: `gallery build`."""
    return dict(_below(typer.main.get_command(app), ()))


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        for name, one in command.commands.items():
            yield from _below(one, (*words, name))
    else:
        yield " ".join(words), command


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(words, command) for words, command in commands().items())


def _section(words: str, command: TyperCommand) -> str:
    context = typer.Context(command, info_name=words)
    pieces = [f"\n## {words}\n\n{_text(command.help)}\n"]
    pieces.append(f"\n    geodtr-export {words} {' '.join(command.collect_usage_pieces(context))}\n")
    groups: dict[str, list[Any]] = {}
    parameters: list[Any] = command.params
    for parameter in parameters:
        if not parameter.hidden:
            groups.setdefault(parameter.rich_help_panel or "", []).append(parameter)
    for group in sorted(groups, key=bool):  # ungrouped options first
        rows = "".join(f"| {_row(parameter, context)} |\n" for parameter in groups[group])
        pieces.append(f"\n| {group or 'argument, option'} | | default |\n|---|---|---|\n{rows}")
    return "".join(pieces)


def _row(parameter: Any, context: typer.Context) -> str:
    choices = getattr(parameter.type, "choices", None)
    text = _text(parameter.help).replace("\n", " ")
    if choices:
        text += f" One of {', '.join(str(getattr(choice, 'value', choice)) for choice in choices)}."
    if isinstance(parameter, TyperOption):
        value = "" if parameter.is_flag or choices else parameter.metavar or TAKES[type(parameter.type).__name__]
        name = f"{', '.join([*parameter.opts, *parameter.secondary_opts])} {value}".strip()
    else:
        name = parameter.make_metavar(context).strip("[]{}")
    return " | ".join((f"`{name}`".replace("|", "` or `"), text, _default(parameter, context)))


def _default(parameter: Any, context: typer.Context) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    default = parameter.get_default(context, call=False)
    if not parameter.show_default or default is None or isinstance(default, bool) or callable(default):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def _text(text: str | None) -> str:
    """A help text as Markdown, without click's paragraph markers."""
    return (text or "").replace("\b\n", "").replace("\f", "").strip()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
