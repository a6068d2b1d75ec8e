"""How commands speak: results on standard output, everything else on standard error."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from geodtr.runtime.manifest import Ratio
    from geodtr.runtime.names import Verdict
    from geodtr.runtime.recall import Recall
    from geodtr.training.data.pair_set import Skipped

T = TypeVar("T")

RECALL_COLUMNS = ("R@1", "R@5", "R@10", "R@1%")

# No markup: a file name may hold brackets.
output = Console(highlight=False, markup=False)
messages = Console(stderr=True, highlight=False, markup=False)


def track(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    """A progress bar around `items`; a plain line when it is over, where no terminal shows the bar."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
    if not messages.is_terminal:
        messages.print(f"{description}: done" if total is None else f"{description}: {total} of {total}")


@contextmanager
def progress_bar() -> Iterator["Progress"]:
    """A bar with what is counted, its rate, how long it has taken, and how long it will; gone when it is over."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g}/s")

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    ) as bar:
        yield bar


def show_json(document: Any) -> None:
    """A result for machines, on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2).decode() + "\n")


def show_line(document: Any) -> None:
    """A result for machines as one line of standard output, flushed, so that a pipe's reader has it at once; where the
    reader has gone, this is the end.
    """
    try:
        sys.stdout.write(msgspec.json.encode(document, enc_hook=str).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        output.on_broken_pipe()


def table(title: str, columns: Iterable[str]) -> "Table":
    """Print a title, and give an empty table in the house's form: words left, figures right."""
    from rich.table import Table

    output.print(title, style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for index, column in enumerate(columns):
        # Long names wrap: two truncated names could look the same.
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    return table


def verdict(passed: bool) -> "Text":
    """Passed or failed, in its colour."""
    return judged("passed" if passed else "failed")


EXIT_CODES: "dict[Verdict, int]" = {"passed": 0, "failed": 1, "undecided": 3}


def judged(of: "Verdict", *, accepted: bool = False) -> "Text":
    """A verdict in its colour; `accepted`: it passed because the user accepts that recall is undecided."""
    from rich.text import Text

    if accepted and of == "passed":
        return Text("accepted", "yellow")
    shown = {"passed": ("passed", "green"), "failed": ("FAILED", "bold red"), "undecided": ("UNDECIDED", "bold yellow")}
    return Text(*shown[of])


def warn(text: str) -> None:
    """Something the user should know, on standard error."""
    messages.print("Warning:", style="bold yellow", end=" ")
    messages.print(text, soft_wrap=True)


def report_skipped(data: str, skipped: Sequence["Skipped"]) -> None:
    """Say which files of the data set `data` were left out, if any."""
    if skipped:
        from geodtr.training.data.pair_set import describe_skipped

        warn(describe_skipped(data, skipped))


def percent(share: float) -> str:
    """A share as the field writes it: 73.4."""
    return f"{100 * share:.1f}"


def recall_cells(of: "Recall") -> list[str]:
    """The figures of RECALL_COLUMNS; a dash where K takes in the whole gallery, which every model finds."""
    from geodtr.runtime.recall import one_percent

    figures = ((1, of.at_1), (5, of.at_5), (10, of.at_10), (one_percent(of.references), of.at_1_percent))
    return [percent(share) if k < of.references else "-" for k, share in figures]


def warn_of_collapse(what: str, of: "Recall") -> None:
    """Say why the recall of `what` is not to be trusted, if it is not."""
    if of.collapsed:
        warn(
            f"{what}: the descriptors have collapsed: two different images have a cosine of {of.alike:.4f} on average. "
            "These figures say nothing; train longer, or with another learning rate."
        )
    if of.tied > 0 and of.suspicious:
        warn(
            f"{what}: {percent(of.tied)} % of the queries have another tile exactly as close as the right one. Ties "
            f"count as hits, so these figures flatter: R@1 is {percent(of.at_1)} with them, "
            f"{percent(of.pessimistic_at_1)} without."
        )


def megabytes(size: int) -> str:
    """A size in MB of a million bytes."""
    return f"{size / 1e6:.1f}"


def times(ratio: "Ratio") -> str:
    """How many times as fast, with the range over rounds: 1.82 x (1.75 to 1.90)."""
    return f"{ratio.median:.2f} x ({ratio.lowest:.2f} to {ratio.highest:.2f})"
