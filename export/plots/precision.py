"""A precision search: what each block costs and gains alone, and recall against speed of all choices."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.theme import DASHED, themed
from geodtr.export.precision.search import trial_verdict
from geodtr.runtime.manifest import SearchEntry
from geodtr.runtime.names import Precision, Verdict

_SELECTED, _OTHER = LIGHT["s1"], LIGHT["faint"]
_COLOURS: dict[Verdict, str] = {"passed": LIGHT["good"], "undecided": _OTHER, "failed": LIGHT["bad"]}


@themed
def search_plot(search: SearchEntry, rest: Precision) -> Figure:
    """Three panels; `rest` is the fallback precision."""
    figure = Figure(figsize=(16, max(6.0, 0.28 * len(search.sensitivity) + 2)), layout="constrained")
    cost, gain, frontier = figure.subplots(1, 3, width_ratios=(1.3, 1, 1.8))
    names = [entry.block for entry in search.sensitivity]
    in_int8 = set(search.chosen.blocks)
    colours = [_SELECTED if name in in_int8 else _OTHER for name in names]
    _bars(cost, names, [1 - entry.mean_cosine for entry in search.sensitivity], colours)
    cost.set_xscale("log")
    cost.xaxis.set_major_formatter("{x:g}")
    cost.set_title("alone in 8 bits: 1 - cosine")
    _bars(gain, names, [100 * (entry.speed - 1) for entry in search.sensitivity], colours)
    gain.set_yticklabels([])
    gain.set_title("alone: faster by, %")
    _frontier(frontier, search, rest)
    return figure


def _bars(axes: Axes, names: list[str], values: list[float], colours: list[str]) -> None:
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), names, fontsize="x-small")
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _frontier(axes: Axes, search: SearchEntry, rest: Precision) -> None:
    for trial in search.trials:
        if trial.speed is None:
            continue
        drop = 100 * (trial.lost - trial.gained) / trial.queries
        selected = trial.blocks == search.chosen.blocks
        colour = _SELECTED if selected else _COLOURS[trial_verdict(trial, search.tolerance)]
        spread = [[drop - 100 * trial.low], [100 * trial.high - drop]]
        axes.errorbar(trial.speed, drop, yerr=spread, fmt="s" if selected else "o", color=colour, capsize=3)
        _label(axes, str(len(trial.blocks)), (trial.speed, drop))
    axes.axhline(search.tolerance, color=LIGHT["bad"], linestyle=DASHED, linewidth=1)
    axes.axhline(0, color=LIGHT["ink"], linewidth=0.6)
    axes.plot(1, 0, "^", color=LIGHT["ink"])
    _label(axes, rest, (1, 0))
    axes.invert_yaxis()
    axes.set_xlabel(f"times as fast as {rest}, both branches, batch {search.batch}")
    axes.set_ylabel("drop in R@1, points, with 95 % interval")
    axes.set_title(f"choices of blocks, by their number; square: chosen ({search.chosen.queries} pairs)")


def _label(axes: Axes, text: str, at: tuple[float, float]) -> None:
    axes.annotate(text, at, xytext=(5, 4), textcoords="offset points", fontsize="small")
