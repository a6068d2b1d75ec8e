"""The command that shows papers' tables, with the user's results among them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from geodtr.cli.console import messages, output, show_json, warn
from geodtr.cli.options import AsJson, argument, flag
from geodtr.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geodtr.training.evaluation.published import Published

_EXPENDABLE = ("source", "counted", "R@10", "R@1%", "R@5", "trained on")


def published(
    data: Annotated[
        list[str] | None,
        argument(
            "[KIND[#SPLIT]]...",
            "Data sets, for example cvact#test or university.",
            show_default="all, or what --results has",
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        flag("--results FILE.json", "What evaluate --json printed, to show among the papers' rows. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show papers' tables of recall, in per cent, with your own results among them.

    Each row names its paper, and in --json where the figure was read. Rows of one table may count in different ways.
    """
    from geodtr.training.evaluation.own_results import read_results
    from geodtr.training.evaluation.published import parse_data, rows
    from geodtr.training.evaluation.published import published as find

    own = [row for path in results or () for row in read_results(path)]
    wanted = [parse_data(text) for text in data or ()]
    if wanted:
        papers = [row for kind, split in wanted for row in find(None, kind, split)]
        mine = own
        own = [row for row in mine if any(row.data == kind and split in ("", row.split) for kind, split in wanted)]
        if others := dict.fromkeys(f"{row.data}#{row.split}" for row in mine if row not in own):
            warn(f"--results has figures on {', '.join(others)} as well, which are not asked for.")
    else:
        shown = {(row.data, row.split) for row in own}
        papers = [row for row in rows() if results is None or (row.data, row.split) in shown]
    if as_json:
        show_json({"published": [asdict(row) for row in papers], "results": [asdict(row) for row in own]})
        return
    tables = dict.fromkeys((row.data, row.split) for row in (*papers, *own))
    for kind, split in tables:
        here = [row for row in (*papers, *own) if (row.data, row.split) == (kind, split)]
        _show(f"{kind}#{split}" if split else kind, here, own)
    if own:
        messages.print("Your results are bold.", style="dim")


def _show(title: str, of: "Sequence[Published]", own: "Sequence[Published]") -> None:
    """One table; columns that no row fills are left out."""
    ranked = sorted(of, key=lambda row: (row.trained_on, row.at_1))
    texts: dict[str, list[str]] = {
        "model": [_name(row) for row in ranked],
        "trained on": [row.trained_on or "?" for row in ranked],
        "R@1": [_figure(row.at_1) for row in ranked],
        "R@5": [_figure(row.at_5) for row in ranked],
        "R@10": [_figure(row.at_10) for row in ranked],
        "R@1%": [_figure(row.at_1_percent) for row in ranked],
        "AP": [_figure(row.average_precision) for row in ranked],
        "hit rate": [_figure(row.hit_rate) for row in ranked],
        "SDM@1": [_figure(row.sdm_at_1) for row in ranked],
        "SDM@3": [_figure(row.sdm_at_3) for row in ranked],
        "Dis@1, m": [_figure(row.metres_at_1) for row in ranked],
        "counted": [row.protocol for row in ranked],
        "source": [row.source for row in ranked],
    }
    columns = {column: cells for column, cells in texts.items() if any(cells)}
    rows = table(title, tuple(columns), tuple(column for column in _EXPENDABLE if column in columns))
    for row, *cells in zip(ranked, *columns.values(), strict=True):
        rows.add_row(*cells, style="bold" if any(row is each for each in own) else None)
    output.print(rows)
    output.print()


def _name(row: "Published") -> str:
    return f"{row.model}{' polar' if row.polar else ''}{' + LS' if row.layout_simulation else ''}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
