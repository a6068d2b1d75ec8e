"""A picture of recall at every K, with how far chance could have moved it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from geodtr.runtime.recall import Ranking, recall_at, wilson_band

_KS = 200
_COLOURS = ("#0b6fb8", "#d1495b", "#2e8b57", "#8a5fbf", "#c77f12", "#4a4a4a")
_TICKS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: what it is called, what it shows, and whether it is another way to count the line before it."""

    label: str
    ranking: Ranking
    same_data: bool = False


def save_curve(lines: Sequence[Line], title: str, path: Path) -> None:
    """Write recall at K = 1 to N - 1 of each line as a PNG file: K on a logarithmic axis, bands of 95 % (Wilson).

    At K = N every query is found, whatever the model: the curve ends before that.
    """
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colour = -1
    for line in lines:
        colour += not line.same_data
        shade = _COLOURS[colour % len(_COLOURS)]
        last = line.ranking.references - 1
        ks = np.unique(np.geomspace(1, last, _KS).round().astype(int))
        shares = np.array(recall_at(line.ranking, ks.tolist()))
        low, high = wilson_band(shares, len(line.ranking.rank))
        axes.fill_between(ks, 100 * low, 100 * high, color=shade, alpha=0.15, linewidth=0)
        style = "--" if line.same_data else "-"
        marker = "o" if len(ks) == 1 else ""
        label = f"{line.label}: R@1 {100 * shares[0]:.1f}"
        axes.plot(ks, 100 * shares, style, color=shade, linewidth=1.8, marker=marker, label=label)
    longest = max(line.ranking.references for line in lines) - 1
    axes.set_xscale("log")
    axes.set_xlim(1, max(longest, 2))
    axes.set_ylim(0, 101)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(longest)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("K, nearest tiles looked at")
    axes.set_ylabel("R@K: queries with the right tile among them, %")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def _ticks(longest: int) -> list[int]:
    """1, 2, 5, 10, 20, ... up to `longest`; tens alone where those would crowd."""
    steps = _TICKS if longest < 20_000 else _TICKS[:1]
    return [step * 10**power for power in range(len(str(longest))) for step in steps if step * 10**power <= longest]
