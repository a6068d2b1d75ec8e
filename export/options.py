"""How a field of a request is spelled on the command line, and which values it takes: declared once, at the field.

The command line makes its options of these declarations, and `command_line` writes them. Imports nothing heavy.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from geodtr.runtime.arguments import check_argument


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the command line.

    Attributes
    ----------
    help
        What it does and its unit.
    flag
        How it is typed; by default the field's own name.
    type
        What the command line parses, where that is not the field's own type.
    shown
        The default as `--help` shows it; None shows the field's default.
    minimum, maximum
        Bounds of its value, both included.
    metavar
        What `--help` calls its value.
    instead
        What to do where a backend without this option is asked for it.
    """

    help: str
    flag: str | None = None
    type: Any = None
    shown: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    metavar: str | None = None
    instead: str | None = None


def option(default: Any, help: str, metavar: str | None = None, **more: Any) -> Any:
    """A dataclass's field that is an option of the command line: MISSING as `default` for one that has none; `more` is
    the other attributes of `Option`.
    """
    return field(default=default, metadata={"option": Option(help, metavar=metavar, **more)})


def options_of(request: Any) -> "Iterator[tuple[Field[Any], Option]]":
    """The fields of a dataclass, or of an instance, that are options."""
    return ((each, each.metadata["option"]) for each in fields(request) if "option" in each.metadata)


def flag_of(of: "Field[Any]") -> str:
    """`--max-batch` of `max_batch`."""
    flag: str | None = of.metadata["option"].flag
    return flag or f"--{of.name.replace('_', '-')}"


def from_given(of: Any, given: Mapping[str, Any], **more: Any) -> Any:
    """An instance of a dataclass, with the options that `given` holds by field, and with `more` fields."""
    return of(**{each.name: given[each.name] for each, _ in options_of(of) if each.name in given}, **more)


def given(request: Any) -> "list[tuple[str, Any]]":
    """The options that differ from their defaults, as the user types them, with their values."""
    return [
        (flag_of(each), getattr(request, each.name))
        for each, _ in options_of(request)
        if each.default is MISSING or getattr(request, each.name) != each.default
    ]


def words(request: Any) -> list[str]:
    """The command line arguments for the options that differ from their defaults."""
    arguments = list[str]()
    for flag, value in given(request):
        if value is True:
            arguments.append(flag)
            continue
        for each in value if isinstance(value, tuple) else (value,):
            # An opened data set goes by its SPEC.
            arguments += [flag, str(each if isinstance(each, (str, int, float, Path)) else each.name)]
    return arguments


def check_options(request: Any) -> None:
    """Raise ArgumentError naming a field whose value is not of its type or out of bounds. Text becomes a path where one
    is declared.
    """
    for each in fields(request):
        how, value = each.metadata.get("option", Option("")), getattr(request, each.name)
        check_argument(each.name, value, each.type, how.minimum, how.maximum)
        if isinstance(value, str) and Path in (each.type, *get_args(each.type)):
            object.__setattr__(request, each.name, Path(value))
