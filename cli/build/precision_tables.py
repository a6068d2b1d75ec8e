"""How a quantised bundle and its search look in a terminal, and drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

from geodtr.cli.console import output, times
from geodtr.cli.tables import table
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Precision

if TYPE_CHECKING:
    from geodtr.runtime.manifest import QuantisationEntry, SearchEntry, SpeedEntry, TrialEntry


def against_fp32(speed: "SpeedEntry") -> str:
    """How fast a bundle is beside float32, in words."""
    each = f"ground {times(speed.ground)}, aerial {times(speed.aerial)}, together {times(speed.both)}"
    return f"speed against fp32 of the same backend, where it was built, batch {speed.batch}: {each}"


def int8_share(made: "QuantisationEntry") -> str:
    """How much of an INT8 bundle is INT8, in words."""
    kept = len(made.kept_float)
    share = f"{made.operators - kept} of {made.operators} operators quantised ({made.dialect})"
    why = f"to keep cosine {made.keep_cosine}" if made.search is None else "as the search for recall and speed chose"
    if kept:
        return f"{share}, the others {made.rest} {why} (--json names them)"
    return share if made.rest == "fp32" else f"{share}, the rest {made.rest}"


def show_search(search: "SearchEntry", rest: "Precision") -> None:
    """Blocks alone, and the choices that were timed or lost too much; `rest` is what is not quantised."""
    from geodtr.export.precision.search import trial_verdict

    notes = {"passed": "", "undecided": "undecided", "failed": "lost too much"}

    rows = table("Blocks alone in 8 bits", ("block", "operators", "mean cos", "lost", "gained", "speed", ""))
    for entry in search.sensitivity:
        kept = "int8" if entry.block in search.chosen.blocks else rest
        speed = f"{entry.speed:.2f} x"
        cells = (f"{entry.mean_cosine:.5f}", str(entry.lost), str(entry.gained), speed, kept)
        rows.add_row(entry.block, str(entry.operators), *cells)
    output.print(rows)
    title = f"Choices of blocks on {search.chosen.queries} pairs of {search.data}, tolerance {search.tolerance} points"
    rows = table(title, ("blocks", "lost", "gained", "drop in R@1, points", "speed", ""))
    for trial in sorted(search.trials, key=lambda each: -(each.speed or 0)):
        drop = 100 * (trial.lost - trial.gained) / trial.queries
        interval = f"{drop:+.2f} ({100 * trial.low:+.2f} to {100 * trial.high:+.2f})"
        speed = "" if trial.speed is None else f"{trial.speed:.2f} x"
        verdict = notes[trial_verdict(trial, search.tolerance)]
        note = "chosen" if trial.blocks == search.chosen.blocks else verdict
        note = note if trial.complete else "given up early"
        rows.add_row(str(len(trial.blocks)), str(trial.lost), str(trial.gained), interval, speed, note)
    output.print(rows)
    output.print(
        f"speed: both branches together, relative to {rest} engines, batch size {search.batch}; drop: against fp32, "
        "with its 95 % confidence interval",
        style="dim",
        soft_wrap=True,
    )
    for line in open_questions(search):
        output.print(line, soft_wrap=True)


def open_questions(search: "SearchEntry") -> list[str]:
    """What the pairs leave undecided: whether the chosen blocks keep their recall, and whether faster ones would."""
    from geodtr.export.precision.search import may_hold, trial_verdict
    from geodtr.export.statistics import pairs_to_decide

    tolerance, selected = search.tolerance, search.chosen

    def pairs(trial: "TrialEntry") -> str:
        enough = pairs_to_decide(trial.lost, trial.gained, trial.queries, tolerance / 100)
        return "No number of pairs would decide it." if enough is None else f"About {enough:,} pairs would decide it."

    lines = list[str]()
    if trial_verdict(selected, tolerance) == "undecided":
        lines.append(
            f"The choice is accepted undecided: the measured drop is within {tolerance} points, and {selected.queries} "
            f"pairs cannot exclude {100 * selected.high:.2f}. {pairs(selected)}"
        )
    faster = [
        trial for trial in search.trials if (trial.speed or 0) > (selected.speed or 0) and may_hold(trial, tolerance)
    ]
    if faster:
        fastest = max(faster, key=lambda trial: trial.speed or 0)
        lines.append(
            f"A faster choice ({fastest.speed:.2f} x) is undecided; its measured drop is within {tolerance} points. "
            f"{pairs(fastest)}"
        )
    return lines


def draw_search(made: "QuantisationEntry | None", path: Path) -> None:
    """Draw what a manifest keeps of a search, as a PNG file. Raises ConfigError when there was none."""
    from geodtr.export.plots.files import save_picture
    from geodtr.export.plots.precision import search_plot

    if made is None or made.search is None:
        raise ConfigError(
            "There is no search to draw: blocks are measured and chosen by build-engine --precision auto. Leave "
            "--picture out."
        )
    save_picture(search_plot(made.search, made.rest), path)
