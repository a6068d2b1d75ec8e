"""How a quantised bundle and its search look in a terminal."""

from typing import TYPE_CHECKING

from geodtr.export.cli.console import output, table, times

if TYPE_CHECKING:
    from geodtr.runtime.manifest import QuantisationEntry, SearchEntry, SpeedEntry


def against_fp32(speed: "SpeedEntry") -> str:
    """How fast a bundle is beside float32, in words."""
    each = f"ground {times(speed.ground)}, aerial {times(speed.aerial)}"
    return f"speed against fp32 of the same backend, where it was built, batch {speed.batch}: {each}"


def int8_share(made: "QuantisationEntry") -> str:
    """How much of an INT8 bundle is INT8, in words."""
    kept = len(made.kept_float)
    share = f"{made.operators - kept} of {made.operators} operators quantised ({made.dialect})"
    why = f"to keep cosine {made.keep_cosine}" if made.search is None else "as the search for recall and speed chose"
    return f"{share}, the others float32 {why} (--json names them)" if kept else share


def show_search(search: "SearchEntry") -> None:
    """Blocks alone, and the choices that were timed or lost too much."""
    from geodtr.export.statistics import pairs_to_be_sure

    rows = table("Blocks alone in 8 bits", ("block", "operators", "mean cos", "lost", "gained", "speed", ""))
    for entry in search.sensitivity:
        kept = "int8" if entry.block in search.chosen.blocks else "float32"
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
        lost_too_much = "" if drop <= search.tolerance else "lost too much"
        note = "chosen" if trial.blocks == search.chosen.blocks else lost_too_much
        note = note if trial.complete else "given up early"
        rows.add_row(str(len(trial.blocks)), str(trial.lost), str(trial.gained), interval, speed, note)
    output.print(rows)
    chosen = search.chosen
    if 100 * chosen.high > search.tolerance:
        enough = pairs_to_be_sure(chosen.lost, chosen.gained, chosen.queries, search.tolerance / 100)
        output.print(
            f"The measured drop is within {search.tolerance} points; {chosen.queries} pairs cannot exclude "
            f"{100 * chosen.high:.2f}. {'No number of pairs' if enough is None else f'About {enough}'} would.",
            soft_wrap=True,
        )
