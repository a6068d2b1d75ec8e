"""What a caller hands over is held against what a function or a dataclass declares: its type, its names, its bounds.

The command line checks what is typed by itself; from Python this is the only check. Knows annotations; knows nothing of
what the values are for.
"""

import os
from collections.abc import Iterable
from dataclasses import fields
from math import inf
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Meta

from geodtr.runtime.errors import ArgumentError

_SHOWN = 80
"""Characters of a value that a message shows."""
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    Path: "a path",
    NoneType: "None",
}


def check_argument(name: str, value: object, of: Any, low: float | None = None, high: float | None = None) -> None:
    """Raise ArgumentError with the argument's name, its value and what is allowed, unless `value` is of the annotation
    `of`, and a number is within `low` and `high`.

    An annotation in quotes, of what is not imported, allows anything.
    """
    if not any(_fits(value, kind) for kind in _kinds(of)):
        words = " or ".join(_word(kind) for kind in _kinds(of))
        raise ArgumentError(name, f"is {shown(value)}; allowed: {words}.")
    if isinstance(value, bool) or not isinstance(value, Real):
        return
    number: Any = value
    if not ((low is None or number >= low) and (high is None or number <= high)):
        allowed = f"at least {low}" if high is None else f"{low} to {high}"
        raise ArgumentError(name, f"is {value}; allowed: {allowed}.")


def check_fields(given: Any) -> None:
    """Hold the fields of a dataclass's instance against their annotations, with the bounds of `Annotated[..., Meta]`,
    whose description is the unit. Raises as `check_argument` does.
    """
    for each in fields(given):
        value, kind = getattr(given, each.name), each.type
        bounds: Any = None
        if get_origin(kind) is Annotated:
            kind, bounds = get_args(kind)
        check_argument(each.name, value, kind)
        if bounds is not None and value is not None:
            _check_bounds(each.name, value, bounds)


def _check_bounds(name: str, value: float, of: Meta) -> None:
    above, low = -inf if of.gt is None else of.gt, -inf if of.ge is None else of.ge
    below, high = inf if of.lt is None else of.lt, inf if of.le is None else of.le
    if abs(value) < inf and above < value < below and low <= value <= high:
        return
    what = f"is {value if isinstance(value, int) else f'{value:g}'}"
    unit = f" {of.description}" if of.description else ""
    if of.lt is not None:
        raise ArgumentError(name, f"{what}; it must lie between {above:g} and {below:g}{unit}.")
    if of.gt is not None:
        raise ArgumentError(name, f"{what}; it must be above {above:g}{unit}, and finite.")
    raise ArgumentError(name, f"{what}; allowed are {low} to {high}{unit}.")


def check_several(name: str, values: object, of: str) -> None:
    """Raise ArgumentError where one value was given for several: a text's letters would be taken for them."""
    if isinstance(values, str | bytes | os.PathLike) or not isinstance(values, Iterable):
        raise ArgumentError(name, f"is {shown(values)}; allowed: a list of {of}.")


def shown(value: object) -> str:
    """A value in a message, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _kinds(of: Any) -> list[Any]:
    """`int` and None of `int | None`."""
    of = NoneType if of is None else of
    return [kind for each in get_args(of) for kind in _kinds(each)] if get_origin(of) in (Union, UnionType) else [of]


def _fits(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple | list) and _fit_all(value, get_args(kind))
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, str | os.PathLike)
    of = origin or kind
    return not isinstance(of, type) or getattr(of, "_is_protocol", False) or isinstance(value, of)


def _fit_all(values: "tuple[object, ...] | list[object]", kinds: tuple[Any, ...]) -> bool:
    if kinds[1:] == (...,):
        kinds = kinds[:1] * len(values)
    return len(values) == len(kinds) and all(
        any(_fits(value, each) for each in _kinds(kind)) for value, kind in zip(values, kinds, strict=True)
    )


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if get_origin(kind) is tuple:
        parts = ("..." if each is ... else " or ".join(map(_word, _kinds(each))) for each in get_args(kind))
        return f"({', '.join(parts)})"
    return _WORDS.get(kind) or str(getattr(kind, "__name__", kind))
