"""Options of a command made of the fields of dataclasses, where each is declared once with its help and its bounds."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field
from typing import Annotated, Any

import typer

from geodtr.export.options import Option, flag_of, options_of


def with_options(
    panels: Mapping[str | None, Sequence[type]], leave_out: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options at the fields of dataclasses, grouped in `--help` by panel (None: with its own ones),
    but for the fields in `leave_out`. They take the place of the command's parameter `given`, which gets those that the
    user gave, by field.
    """

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())
        place = [each.name for each in own].index("given")
        more = {each.name: each for each in _parameters(panels) if each.name not in leave_out}

        def wrapped(context: typer.Context, **values: Any) -> None:
            given = {
                name: tuple(values[name]) if isinstance(values[name], list) else values[name]
                for name in more
                if _is_given(context, name)
            }
            command(given=given, **{each.name: values[each.name] for each in own if each.name in values})

        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *own[:place], *more.values(), *own[place + 1 :]]
        wrapped.__doc__ = command.__doc__
        wrapped.__name__ = command.__name__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
        wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapped

    return wrap


def _parameters(panels: Mapping[str | None, Sequence[type]]) -> Iterator[inspect.Parameter]:
    """One for each field; of fields of the same name in several classes, the first."""
    seen = set[str]()
    for panel, classes in panels.items():
        for each, how in (option for of in classes for option in options_of(of)):
            if each.name not in seen:
                seen.add(each.name)
                yield _parameter(each, how, panel)


def _parameter(of: "Field[Any]", how: Option, panel: str | None) -> inspect.Parameter:
    declared: Any = typer.Option(
        flag_of(of),
        help=how.help,
        show_default=how.shown or True,
        min=how.minimum,
        max=how.maximum,
        metavar=how.metavar,
        rich_help_panel=panel,
    )
    kind: Any = how.type or of.type
    default = of.default
    if default is MISSING or default == ():
        kind, default = kind | None, None
    return inspect.Parameter(
        of.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
    )


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether the user gave an option, if only its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
