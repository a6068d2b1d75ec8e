"""The report's plots: measured and allowed change, recall at every K, cosines, ranks before and after.

Each is an `svg` element as wide as a phone's screen, which scales up: its text stays legible on both.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from geodtr.export.parity.measurements import BranchAgreement, LayerAgreement
from geodtr.export.parity.result import Candidate, ParityResult
from geodtr.export.plots.colours import LIGHT, REFERENCE, Series, series
from geodtr.export.plots.numbers import clipped, cosine, counted, percent, points, signed
from geodtr.export.plots.recall import Line, draw_recall, k_axis, spaced_ks
from geodtr.export.plots.theme import (
    BAND,
    DASHED,
    DOTTED,
    count_axis,
    inline_svg,
    label_ticks,
    new_plot,
    themed,
)
from geodtr.export.statistics import paired_drop
from geodtr.runtime.names import Branch
from geodtr.runtime.recall import Ranking, recall_at

_WIDTH, _HEIGHT = 360, 240
_NEAREST = 1e-7
"""The smallest distance of a float32 cosine from 1 that its precision resolves."""
_BINS_A_DECADE = 4
_NONE = 0.7
"""Where a logarithmic scale of counts begins: an empty bin stands on its floor, one image above it."""
_NAME = 28
"""Letters of a candidate's name that fit above its line."""
_SINGLE_RANKS = 10
_SIZES = (1, 10, 100, 1000, 10_000)


@themed
def change_plot(candidates: Sequence[Candidate]) -> str:
    """Each candidate's change of R@1, its interval, and the drop that is allowed."""
    gates = [candidate.gate for candidate in candidates]
    ends = [0.0, *(-100 * end for gate in gates for end in (gate.high, gate.low, gate.max_drop))]
    room = 0.06 * max(max(ends) - min(ends), 0.1)
    low, high = min(ends) - room, max(ends) + room
    figure, axes = new_plot(_WIDTH, 60 + 44 * len(candidates))
    for row, (candidate, gate) in enumerate(zip(candidates, gates, strict=True)):
        middle, allowed = row + 0.68, [row + 0.42, row + 0.94]
        axes.fill_betweenx(allowed, -100 * gate.max_drop, high, color=LIGHT["allowed"], linewidth=0)
        axes.plot([-100 * gate.max_drop] * 2, allowed, color=LIGHT["good"], linewidth=1.5)
        colour = series(row).colour
        ends = [-100 * gate.high, -100 * gate.low]
        axes.plot(ends, [middle] * 2, color=colour, marker="|", markersize=9, markeredgewidth=2)
        edge = LIGHT["bad"] if gate.verdict == "failed" else colour
        face = LIGHT["paper"] if gate.verdict == "undecided" else edge
        axes.plot(-100 * gate.drop, middle, "o", color=edge, markerfacecolor=face, markeredgewidth=2, markersize=9)
        axes.text(low, row + 0.32, f"{clipped(candidate.name, _NAME)}: {gate.verdict}", weight="bold")
    axes.axvline(0, color=LIGHT["faint"], linewidth=1, linestyle=DOTTED)
    axes.set(xlim=(low, high), ylim=(len(candidates), 0), xlabel="change of R@1, points")
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    label_ticks(axes.xaxis, _signed)
    summary = "; ".join(
        f"{candidate.name} {points(-gate.drop)} points, 95 % between {points(-gate.high)} and "
        f"{points(-gate.low)}, may fall by {percent(gate.max_drop)}, {gate.verdict}"
        for candidate, gate in zip(candidates, gates, strict=True)
    )
    return inline_svg(figure, f"Change of R@1 of each candidate. {summary}.")


@themed
def recall_plot(result: ParityResult) -> str:
    """Recall at K of the reference and of every candidate, with the band of 95 % that so few queries leave."""
    evidence = result.evidence
    looks = [REFERENCE, *map(series, range(len(result.candidates)))]
    names = [result.figures.reference.name, *(candidate.name for candidate in result.candidates)]
    rankings = [evidence.reference, *(each.rankings["own"] for each in evidence.candidates)]
    lines = list(map(Line, names, rankings, looks))
    figure, axes = new_plot(_WIDTH, _HEIGHT)
    draw_recall(axes, lines)
    summary = ", ".join(f"{line.label} {percent(recall_at(line.ranking, [1])[0])} %" for line in lines)
    return inline_svg(figure, f"Recall at K. At K = 1: {summary}.")


@themed
def recall_change_plot(result: ParityResult) -> str:
    """How much recall at K changed, query by query, with the interval of the paired change."""
    before = result.evidence.reference
    ks = spaced_ks(before.references)
    figure, axes = new_plot(_WIDTH, _HEIGHT)
    axes.axhline(0, color=LIGHT["faint"], linewidth=1, linestyle=DOTTED)
    summary = []
    for number, (candidate, each) in enumerate(zip(result.candidates, result.evidence.candidates, strict=True)):
        drops = [paired_drop(before.rank < k, each.rankings["own"].rank < k) for k in ks]
        look = series(number)
        low, high = [-100 * drop.high for drop in drops], [-100 * drop.low for drop in drops]
        axes.fill_between(ks, low, high, color=look.colour, alpha=BAND, linewidth=0)
        axes.plot(ks, [-100 * drop.share for drop in drops], color=look.colour, linestyle=look.line)
        summary.append(f"{candidate.name} {points(-drops[0].share)} points")
    axes.margins(y=0)
    axes.set_ylabel("change, points")
    label_ticks(axes.yaxis, _signed)
    k_axis(axes, before.references)
    name = result.figures.reference.name
    return inline_svg(figure, f"Change of recall at K against {name}. At K = 1: {', '.join(summary)}.")


@themed
def cosine_plot(result: ParityResult, branch: Branch) -> str:
    """Images by the cosine of their descriptor with the reference's, counts on a logarithmic scale."""
    distances = [1 - np.asarray(each.cosine[branch], np.float64) for each in result.evidence.candidates]
    floors = [1 - candidate.gate.least_cosine for candidate in result.candidates]
    decade = _decade(max(*(values.max(initial=0) for values in distances), *floors))
    edges = np.logspace(-7, decade, _BINS_A_DECADE * (7 + decade) + 1)
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] for values in distances]
    top = 10.0 ** np.ceil(np.log10(max(int(count.max()) for count in counts) * 1.05))
    figure, axes = new_plot(_WIDTH, _HEIGHT)
    for number, (count, floor) in enumerate(zip(counts, floors, strict=True)):
        colour, heights = series(number).colour, np.maximum(count, _NONE)
        axes.stairs(heights, edges, baseline=_NONE, fill=True, color=colour, alpha=BAND, linewidth=0)
        axes.stairs(heights, edges, baseline=None, color=colour, linewidth=1.4)
        axes.axvline(float(np.clip(floor, edges[0], edges[-1])), color=colour, linewidth=1.2, linestyle=DASHED)
    count_axis(axes, "y", top)
    axes.yaxis.set_major_locator(LogLocator())
    axes.set(xscale="log", xlim=(edges[-1], edges[0]), ylim=(_NONE, top), ylabel=f"{branch} images")
    axes.set_xlabel("cosine with the reference's descriptor")
    _cosine_axis(axes.xaxis)
    summary = ", ".join(
        f"{candidate.name} from {cosine(_agreement(candidate, branch).smallest_cosine)} to 1, mean "
        f"{cosine(_agreement(candidate, branch).mean_cosine)}"
        for candidate in result.candidates
    )
    return inline_svg(figure, f"Cosines of the {branch} branch's descriptors with the reference's: {summary}.")


@themed
def rank_plot(before: Ranking, after: Ranking, name: str) -> str:
    """Queries by the rank of their tile before and after: above the diagonal it fell."""
    last = 1 + int(max(before.rank.max(), after.rank.max(), 1))
    edges = _rank_edges(last)
    counts = np.histogram2d(before.rank + 1.0, after.rank + 1.0, bins=(edges, edges))[0].astype(int)
    worse, better = (int(np.count_nonzero(order)) for order in (after.rank > before.rank, after.rank < before.rank))
    figure, axes = new_plot(_WIDTH, 350)
    ends = (edges[0], edges[-1])
    axes.plot(ends, ends, color=LIGHT["faint"], linewidth=1, linestyle=DOTTED)
    # A cell of one rank stands at it, a wider one halfway along the scale.
    middles = np.where(np.diff(edges) > 1.01, np.sqrt(edges[:-1] * edges[1:]), edges[1:] - 0.5)
    across, down = np.nonzero(counts)
    kinds = np.sign(down - across)
    for kind, colour in ((0, LIGHT["faint"]), (1, LIGHT["bad"]), (-1, LIGHT["s1"])):
        of = kinds == kind
        sizes = [(2 * size_of(count)) ** 2 for count in counts[across[of], down[of]]]
        axes.scatter(
            *(middles[across[of]], middles[down[of]], sizes),
            color=colour,
            alpha=0.75,
            edgecolors=LIGHT["paper"],
            linewidths=0.5,
        )
    count_axis(axes, "x", last)
    count_axis(axes, "y", last)
    axes.set(xlim=ends, ylim=ends, xlabel="rank before", ylabel="rank after")
    axes.text(0.03, 0.97, f"worse: {worse:,}", color=LIGHT["bad"], va="top", transform=axes.transAxes)
    axes.text(0.97, 0.03, f"better: {better:,}", color=LIGHT["s1"], ha="right", transform=axes.transAxes)
    return inline_svg(
        figure,
        f"Rank of the right tile, {name} against the reference: worse for {counted(worse, 'query', 'queries')}, better "
        f"for {better:,}, the same for {len(before.rank) - worse - better:,}.",
    )


def size_of(queries: int) -> float:
    """A dot's radius: its area grows with the number's digits, for one dot holds nearly all queries."""
    return float(3.2 * np.sqrt(1 + 2 * np.log10(queries)))


def sizes(queries: int) -> list[int]:
    """The numbers of queries that a legend of `size_of` shows for so many in all."""
    return [size for size in _SIZES if size <= queries]


@themed
def layer_plot(layers: Sequence[LayerAgreement], branch: Branch, look: Series, name: str) -> str:
    """The cosine of every node's output with the float32 graph's, in the graph's order."""
    gone = np.clip([1 - layer.cosine for layer in layers], _NEAREST, 1.0)
    figure, axes = new_plot(_WIDTH, _HEIGHT)
    axes.plot(np.arange(1, len(gone) + 1), gone, color=look.colour, clip_on=False)
    axes.set(yscale="log", ylim=(10.0 ** _decade(gone.max()), _NEAREST), ylabel="cosine")
    axes.set(xlim=(1, max(len(gone), 2)), xlabel=f"nodes of the {branch} graph, in its order")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _cosine_axis(axes.yaxis)
    worst = min(layers, key=lambda layer: layer.cosine)
    return inline_svg(
        figure,
        f"Cosine of each node's output with the float32 graph's, {name}, {branch} branch; lowest "
        f"{cosine(worst.cosine)} at {worst.node}.",
    )


def _agreement(candidate: Candidate, branch: Branch) -> BranchAgreement:
    return next(each for each in candidate.branches if each.branch == branch)


def _signed(value: float) -> str:
    """As in: +2, 0, −0.5."""
    return signed(f"{value:+g}")


def _decade(distance: float) -> int:
    """The power of ten at which an axis of cosines ends that holds this distance from 1."""
    return min(0, int(np.ceil(np.log10(max(distance, 10 * _NEAREST)) + 1e-9)))


def _cosine_axis(axis: Axis) -> None:
    """Ticks of a logarithmic axis of the distance from 1: at 0, 0.9, 0.99 and so on to float32's resolution."""
    axis.set_major_locator(LogLocator(numticks=10))
    axis.set_minor_locator(NullLocator())
    label_ticks(axis, _cosine_label)


def _cosine_label(distance: float) -> str:
    """Long labels leave one out between them, and the last one is 1 to float32."""
    power = round(np.log10(distance))
    if -4 <= power <= 0:
        return f"{1 - 10.0**power:.{-power}f}"
    return {-6: "1−10⁻⁶", -7: "1"}.get(power, "")


def _rank_edges(last: int) -> NDArray[np.float64]:
    """Edges of cells of ranks 1 to `last`: one rank each up to ten, then about eight to each tenfold."""
    single = np.arange(0.5, min(last, _SINGLE_RANKS) + 1)
    if last <= _SINGLE_RANKS:
        return single
    wider = np.geomspace(single[-1], last + 0.5, 1 + int(np.ceil(8 * np.log10((last + 0.5) / single[-1]))))
    return np.concatenate([single, np.unique(np.rint(wider[1:] - 0.5)) + 0.5]).astype(np.float64)
