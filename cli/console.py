"""How commands speak: results on standard output, everything else on standard error."""

import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, ConsoleDimensions

from geodtr.runtime.errors import UserError
from geodtr.runtime.files.documents import encode_json
from geodtr.runtime.files.foreign_text import visible
from geodtr.runtime.names import Verdict

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.text import Text

    from geodtr.runtime.manifest import Ratio
    from geodtr.runtime.recall import Recall
    from geodtr.training.data.pair_set import Skipped

T = TypeVar("T")

RECALL_COLUMNS = ("R@1", "R@5", "R@10", "R@1%")

_UNLIMITED = 10_000
"""Columns of what is no terminal: a file or a pipe gets whole lines."""
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Characters that JSON may hold as they are, and a terminal obeys."""
_NOT_ASCII = re.compile("[^\x00-\x7f]")


READER_GONE = 128 + signal.SIGPIPE
"""The exit code where nobody reads standard output any more, as a shell gives it for other tools."""


class Speaker(Console):
    """A console whose every string is made `visible`, so that no caller has to, and whose lines are never cut."""

    reader_needed = False
    """Whether the work is over where the reader of standard output has gone."""
    holds_refusal = False
    """Whether a disk that refuses standard output is reported at the end of the work only, by `refused`."""
    refused: UserError | None = None

    def render_str(self, text: str, **how: Any) -> "Text":
        return super().render_str(visible(text), **how)

    @property  # type: ignore[misc] # nobody sets it
    def size(self) -> ConsoleDimensions:
        size = super().size
        return size if self.is_terminal else ConsoleDimensions(_UNLIMITED, size.height)

    def print(self, *objects: Any, **how: Any) -> None:
        # Lines of messages are left to the terminal to wrap: it copies a path that it broke as one.
        how = {"crop": False, "soft_wrap": self.stderr and all(isinstance(each, str) for each in objects), **how}
        if not self.stderr:
            with _reporting_output():
                super().print(*objects, **how)
            return
        try:
            super().print(*objects, **how)
        except OSError:
            self.quiet = True

    def on_broken_pipe(self) -> None:
        self.quiet = True  # nobody can read it, and the work goes on
        if self.stderr:
            return
        self.let_go()
        if self.reader_needed:
            sys.exit(READER_GONE)

    @staticmethod
    def let_go() -> None:
        """Drop what is still printed to standard output."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


# No markup and no emoji: a file name may hold brackets and colons.
output = Speaker(highlight=False, markup=False, emoji=False)
messages = Speaker(stderr=True, highlight=False, markup=False, emoji=False)


@contextmanager
def _reporting_output() -> Iterator[None]:
    """Turn what standard output refuses (a full disk, a closed stream) into a UserError."""
    try:
        yield
    except BrokenPipeError:  # the reader has all that it wanted
        output.on_broken_pipe()
    except OSError as error:
        refused = UserError(f"Standard output cannot be written ({error.strerror}). Direct it elsewhere.")
        if not output.holds_refusal:
            raise refused from None
        output.refused = refused
        output.let_go()


@contextmanager
def printing_results(*others: object) -> Iterator[None]:
    """For results that are printed as they come. Where they go to `others` too, such as a file or an autopilot (None
    for one that was not asked for), these get all of them, even if standard output cannot be written any more: its
    reader may go, and what a disk refuses is raised in the end. Without others the reader's going ends the command.
    """
    elsewhere = any(other is not None for other in others)
    output.reader_needed, output.holds_refusal, output.refused = not elsewhere, elsewhere, None
    try:
        yield
    finally:
        output.reader_needed = output.holds_refusal = False
    if output.refused is not None:
        raise output.refused


@contextmanager
def naming_files(*paths: Path) -> Iterator[None]:
    """Where a signal ends the command after all of these new files are there, say that they are."""
    try:
        yield
    except SystemExit:
        if all(path.exists() for path in paths):
            messages.print(f"Wrote {' and '.join(map(str, paths))}")
        raise


def write_output(text: str) -> None:
    """Write to standard output and flush, so that a pipe's reader has it at once and a full disk is noticed."""
    with _reporting_output():
        sys.stdout.write(text)
        sys.stdout.flush()


def track(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    """A progress bar around `items`; a plain line when it is over, where no terminal shows the bar, with how many of
    them came.
    """
    count = 0
    with progress_bar() as bar:
        for item in bar.track(items, total=total, description=visible(description)):
            count += 1
            yield item
    if not messages.is_terminal:
        messages.print(f"{description}: done" if total is None else f"{description}: {count} of {total}")


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
        TextColumn("{task.description}", markup=False),
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
    write_output(_json(document, indent=2) + "\n")


def show_line(document: Any) -> None:
    """A result for machines as one line of standard output."""
    write_output(_json(document) + "\n")


def _json(document: Any, indent: int | None = None) -> str:
    """JSON of which a terminal obeys nothing and every byte of a file name can be read back: in Python, os.fsencode."""
    text = encode_json(document, str, indent).decode()
    utf8 = (sys.stdout.encoding or "utf-8").lower() in ("utf-8", "utf8")
    return (_OBEYED if utf8 else _NOT_ASCII).sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


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
    messages.print(text)


def report_skipped(data: str, skipped: Sequence["Skipped"]) -> None:
    """Say which files of the data set `data` were left out, if any."""
    if skipped:
        from geodtr.training.data.pair_set import describe_skipped

        warn(describe_skipped(data, skipped))


def percent(share: float) -> str:
    """A share as the field writes it: 73.4."""
    return f"{100 * share:.1f}"


def recall_cells(of: "Recall") -> list[str]:
    """The figures of RECALL_COLUMNS; a dash where K takes in the whole gallery."""
    return ["-" if share is None else percent(share) for share in of.telling]


def warn_of_doubt(what: str, doubt: str | None) -> None:
    """Say that the model was made for other images than `what` has, if it was."""
    if doubt is not None:
        warn(
            f"{what}: {doubt}. The images were taken as they are. --rows FROM,TO keeps some rows of "
            "panoramas, --fov cuts them to a field of view."
        )


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
