"""How the choice of `--backend auto` looks in a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from geodtr.cli.console import output, times
from geodtr.cli.tables import table

if TYPE_CHECKING:
    from geodtr.runtime.manifest import BackendChoiceEntry, Speed


def show_choice(
    choice: "BackendChoiceEntry", kept: str, title: str, today: "Mapping[str, Speed] | None" = None
) -> None:
    """Every backend that was tried, with its speed or why it was not timed. `kept`: the one in the bundle, as
    `runs_by` names it. `today`: what that one was measured at now, by `ground`, `aerial` and `both`.
    """
    from geodtr.export.timing import rounded

    columns = ("backend", "img/s", "range", "x kept (range)", *(["today"] if today else []), "")
    rows = table(f"{title}, batch {choice.batch}", columns)
    for trial in choice.trials:
        if not trial.speeds:
            continue
        blank = [""] * (len(columns) - 2)
        note = "kept" if trial.runs_by == kept else "as fast" if trial.tied else ""
        rows.add_row(f"{trial.runs_by} {trial.version}", *blank, note)
        for what, speed in trial.speeds.items():
            rate = speed.images_per_second
            now = today.get(what) if today and trial.runs_by == kept else None
            rows.add_row(
                f"  {what}",
                rounded(rate.median),
                f"{rounded(rate.slowest)} to {rounded(rate.fastest)}",
                times(speed.times_kept),
                *([rounded(now.median) if now else ""] if today else []),
                "",
            )
    output.print(rows)
    for trial in choice.trials:
        if trial.reason is not None:
            output.print(f"{trial.runs_by}: not timed. {trial.reason}", soft_wrap=True)
    if any(trial.tied for trial in choice.trials):
        output.print(
            "as fast: no difference from the kept backend beyond chance (sign test over the rounds, 5 %); of equally "
            "fast ones the first in this table is kept",
            style="dim",
            soft_wrap=True,
        )
