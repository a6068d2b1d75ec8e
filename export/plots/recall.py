"""Recall at every K, with how far chance could have moved it: for `evaluate --curve` and for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geodtr.export.plots.colours import Series
from geodtr.export.plots.theme import BAND, count_axis, new_plot, themed
from geodtr.runtime.recall import Ranking, recall_at, wilson_band

_KS = 100


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: what it is called, what it shows, and how it is drawn."""

    label: str
    ranking: Ranking
    look: Series


@themed
def recall_curve(lines: Sequence[Line], title: str) -> Figure:
    """A picture by itself: `draw_recall` with a legend that gives R@1."""
    figure, axes = new_plot(576, 360)
    draw_recall(axes, lines)
    axes.set_ylabel("R@K: queries with the right tile among them, %")
    axes.set_title(title)
    handles = axes.get_lines()
    labels = [f"{line.label}: R@1 {100 * recall_at(line.ranking, [1])[0]:.1f}" for line in lines]
    axes.legend(handles, labels, loc="lower right")
    return figure


def draw_recall(axes: Axes, lines: Sequence[Line]) -> None:
    """Recall at K = 1 to N - 1 of each line, K on a logarithmic axis, with bands of 95 % (Wilson).

    At K = N any model finds every query, so the curve ends before that. The recall axis begins at the multiple of ten
    per cent below the lowest band.
    """
    lowest = 1.0
    for line in lines:
        ks = spaced_ks(line.ranking.references)
        shares = np.array(recall_at(line.ranking, ks.tolist()))
        low, high = wilson_band(shares, len(line.ranking.rank))
        lowest = min(lowest, float(low.min()))
        colour = line.look.colour
        axes.fill_between(ks, 100 * low, 100 * high, color=colour, alpha=BAND, linewidth=0)
        marker = "o" if len(ks) == 1 else ""
        axes.plot(ks, 100 * shares, linestyle=line.look.line, color=colour, marker=marker, clip_on=False)
    axes.set_ylim(10 * np.floor(10 * lowest), 100)
    axes.set_ylabel("R@K, %")
    k_axis(axes, max(line.ranking.references for line in lines))


def spaced_ks(references: int) -> NDArray[np.int64]:
    """Up to a hundred of K = 1 to N - 1, evenly on a logarithmic axis."""
    return np.unique(np.geomspace(1, max(references - 1, 1), _KS).round().astype(np.int64))


def k_axis(axes: Axes, references: int) -> None:
    """The axis of `spaced_ks`."""
    last = max(references - 1, 2)
    count_axis(axes, "x", last)
    axes.set_xlim(1, last)
    axes.set_xlabel("K, nearest tiles looked at")
