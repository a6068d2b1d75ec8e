"""How commands speak: results on standard output, everything else on standard error."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from geodtr.training.loop import Step

T = TypeVar("T")

output = Console(soft_wrap=False, highlight=False)
messages = Console(stderr=True, highlight=False)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """A progress bar around `items`; a plain line when it is over, where no terminal shows the bar."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
    if not messages.is_terminal:
        messages.print(f"{description}: {total} of {total}")


@contextmanager
def progress_bar() -> Iterator["Progress"]:
    """A bar with what is counted, how long it has taken, and how long it will; gone when it is over."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    ) as bar:
        yield bar


@contextmanager
def training_bar() -> Iterator[Callable[["Step"], None]]:
    """A bar that follows training, with the loss; a plain line an epoch, where no terminal shows the bar."""
    with progress_bar() as bar:
        task = bar.add_task("Training", total=None)
        last: Step | None = None

        def on_step(step: "Step") -> None:
            nonlocal last
            if last is not None and step.epoch != last.epoch and not messages.is_terminal:
                messages.print(f"Epoch {last.epoch + 1}: step {last.number} of {last.total}, loss {last.loss:.4f}")
            bar.update(task, total=step.total, completed=step.number, description=f"Training, loss {step.loss:.4f}")
            last = step

        yield on_step


def show_json(document: Any) -> None:
    """A result for machines, on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2).decode() + "\n")


def table(title: str, columns: Iterable[str]) -> "Table":
    """An empty table in the house's form: words left, figures right."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1))
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    return made


def percent(share: float) -> str:
    """A share as the field writes it: 73.4."""
    return f"{100 * share:.1f}"


def megabytes(size: int) -> str:
    """A size in MB of a million bytes."""
    return f"{size / 1e6:.1f}"
