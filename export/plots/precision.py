"""A picture of a precision search: what each block costs and gains alone, and recall against speed of all choices."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geodtr.export.precision.search import trial_verdict
from geodtr.runtime.manifest import SearchEntry
from geodtr.runtime.names import Precision, Verdict

_CHOSEN, _GREY, _FAILED = "#0b6fb8", "#8a8a8a", "#d1495b"
_COLOURS: dict[Verdict, str] = {"passed": "#2e8b57", "undecided": _GREY, "failed": _FAILED}


def save_picture(search: SearchEntry, rest: Precision, path: Path) -> None:
    """Write the picture as a PNG file; `rest` is the precision of what is not quantised."""
    height = max(5.0, 0.24 * len(search.sensitivity) + 2)
    figure = Figure(figsize=(13, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    cost, gain, frontier = figure.subplots(1, 3, width_ratios=(1.3, 1, 1.8))
    names = [entry.block for entry in search.sensitivity]
    in_int8 = set(search.chosen.blocks)
    colours = [_CHOSEN if name in in_int8 else _GREY for name in names]
    _bars(cost, names, [1 - entry.mean_cosine for entry in search.sensitivity], colours)
    cost.set_xscale("log")
    cost.set_title("alone in 8 bits: 1 - cosine", loc="left", fontsize=10)
    _bars(gain, names, [100 * (entry.speed - 1) for entry in search.sensitivity], colours)
    gain.set_yticklabels([])
    gain.set_title("alone: faster by, %", loc="left", fontsize=10)
    _frontier(frontier, search, rest)
    figure.savefig(path, format="png")


def _bars(axes: Axes, names: list[str], values: list[float], colours: list[str]) -> None:
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)


def _frontier(axes: Axes, search: SearchEntry, rest: Precision) -> None:
    for trial in search.trials:
        if trial.speed is None:
            continue
        drop = 100 * (trial.lost - trial.gained) / trial.queries
        chosen = trial.blocks == search.chosen.blocks
        colour = _CHOSEN if chosen else _COLOURS[trial_verdict(trial, search.tolerance)]
        spread = [[drop - 100 * trial.low], [100 * trial.high - drop]]
        axes.errorbar(trial.speed, drop, yerr=spread, fmt="s" if chosen else "o", color=colour, capsize=3)
        _label(axes, str(len(trial.blocks)), (trial.speed, drop))
    axes.axhline(search.tolerance, color=_FAILED, linestyle="--", linewidth=1)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.plot(1, 0, "k^")
    _label(axes, rest, (1, 0))
    axes.invert_yaxis()
    axes.set_xlabel(f"times as fast as {rest}, both branches, batch {search.batch}")
    axes.set_ylabel("drop in R@1, points, with 95 % interval")
    axes.set_title(
        f"choices of blocks, by their number; square: chosen ({search.chosen.queries} pairs)", loc="left", fontsize=10
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#eeeeee", linewidth=0.6)


def _label(axes: Axes, text: str, at: tuple[float, float]) -> None:
    axes.annotate(text, at, xytext=(5, 4), textcoords="offset points", fontsize=8)
