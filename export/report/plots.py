"""The report's plots: what changed against what may, recall at every K, cosines, ranks before and after."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geodtr.export.parity.result import BranchAgreement, Candidate, LayerAgreement, ParityResult
from geodtr.export.report.figures import clipped, cosine, counted, percent, points, signed
from geodtr.export.report.svg import Axis, Plot, round_ticks
from geodtr.export.statistics import paired_drop
from geodtr.runtime.names import Branch
from geodtr.runtime.recall import Ranking, recall_at, wilson_band

_KS = 60
_NEAREST = 1e-7
"""The smallest distance from 1 that a float32 cosine can be told by."""
_BINS_A_DECADE = 4
_NONE = 0.7
"""Where a logarithmic scale of counts begins: an empty bin stands on its floor, one image above it."""
_NAME = 28
"""Letters of a candidate's name that fit above its line."""
_SINGLE_RANKS = 10
_SIZES = (1, 10, 100, 1000, 10_000)
REFERENCE = "s0"


def series(number: int) -> str:
    """The style of candidate `number`, counted from 0."""
    return f"s{1 + number % 7}"


def change_plot(candidates: Sequence[Candidate]) -> str:
    """Each candidate's change of R@1, its interval, and the drop that is allowed."""
    ends = [0.0]
    for candidate in candidates:
        ends += [-candidate.gate.high, -candidate.gate.low, -candidate.gate.max_drop]
    low, high = 100 * min(ends), 100 * max(ends)
    room = 0.06 * max(high - low, 0.1)
    x = Axis("change of R@1, points", low - room, high + room, _round(low - room, high + room))
    y = Axis("", len(candidates), 0, ())
    said = "; ".join(
        f"{candidate.name} {points(-candidate.gate.drop)} points, 95 % between {points(-candidate.gate.high)} and "
        f"{points(-candidate.gate.low)}, may fall by {percent(candidate.gate.max_drop)}, {candidate.gate.verdict}"
        for candidate in candidates
    )
    plot = Plot(f"Change of R@1 of each candidate. {said}.", x, y, height=60 + 44 * len(candidates), left=14)
    for row, candidate in enumerate(candidates):
        gate, middle = candidate.gate, row + 0.68
        plot.box((-100 * gate.max_drop, x.high), (row + 0.42, row + 0.94), "allowed")
        tolerance = [-100 * gate.max_drop] * 2
        plot.line(tolerance, [row + 0.42, row + 0.94], "tolerance")
        plot.line([-100 * gate.high, -100 * gate.low], [middle, middle], series(row))
        for end in (gate.high, gate.low):
            plot.line([-100 * end, -100 * end], [middle - 0.1, middle + 0.1], series(row))
        plot.dot(-100 * gate.drop, middle, f"point {series(row)} {gate.verdict}", 4.5)
        plot.words(x.low, row + 0.32, f"{clipped(candidate.name, _NAME)}: {gate.verdict}", "name")
    plot.line([0, 0], [0, len(candidates)], "zero")
    return plot.drawn()


def recall_plot(result: ParityResult) -> str:
    """Recall at K of the reference and of every candidate, with the band of 95 % that so few queries leave."""
    evidence = result.evidence
    ks = _ks(evidence.reference.references)
    rankings = [evidence.reference, *(each.rankings["own"] for each in evidence.candidates)]
    shares = [np.array(recall_at(ranking, ks.tolist())) for ranking in rankings]
    bands = [wilson_band(share, len(ranking.rank)) for share, ranking in zip(shares, rankings, strict=True)]
    low = 10 * np.floor(10 * min(band[0].min() for band in bands))
    y = Axis("R@K, %", low, 100, _round(low, 100))
    styles = [REFERENCE, *map(series, range(len(result.candidates)))]
    names = [result.figures.reference.name, *(candidate.name for candidate in result.candidates)]
    said = ", ".join(f"{name} {percent(share[0])} %" for name, share in zip(names, shares, strict=True))
    plot = Plot(f"Recall at K. At K = 1: {said}.", _k_axis(ks), y)
    for number, (below, above) in enumerate(bands):
        plot.band(ks, 100 * below, 100 * above, styles[number])
    for number, share in enumerate(shares):
        plot.line(ks, 100 * share, f"curve {styles[number]}")
    return plot.drawn()


def recall_change_plot(result: ParityResult) -> str:
    """How much recall at K changed, query by query, with the interval of the paired change."""
    evidence = result.evidence
    ks = _ks(evidence.reference.references)
    drops = [
        [paired_drop(evidence.reference.rank < k, each.rankings["own"].rank < k) for k in ks]
        for each in evidence.candidates
    ]
    every = [100 * end for curve in drops for drop in curve for end in (-drop.low, -drop.high)]
    low, high = min(every), max(every)
    y = Axis("change, points", low, high, _round(low, high))
    said = ", ".join(
        f"{candidate.name} {points(-curve[0].share)} points"
        for candidate, curve in zip(result.candidates, drops, strict=True)
    )
    plot = Plot(f"Change of recall at K against {result.figures.reference.name}. At K = 1: {said}.", _k_axis(ks), y)
    for number, curve in enumerate(drops):
        plot.band(ks, [-100 * drop.high for drop in curve], [-100 * drop.low for drop in curve], series(number))
    plot.line([ks[0], ks[-1]], [0, 0], "zero")
    for number, curve in enumerate(drops):
        plot.line(ks, [-100 * drop.share for drop in curve], f"curve {series(number)}")
    return plot.drawn()


def cosine_plot(result: ParityResult, branch: Branch) -> str:
    """Images by the cosine of their descriptor with the reference's, counts on a logarithmic scale."""
    found = [1 - np.asarray(each.cosine[branch], np.float64) for each in result.evidence.candidates]
    floors = [1 - candidate.gate.least_cosine for candidate in result.candidates]
    widest = max(*(values.max(initial=0) for values in found), *floors)
    decade = min(0, int(np.ceil(np.log10(max(widest, 10 * _NEAREST)) + 1e-9)))
    edges = np.logspace(-7, decade, _BINS_A_DECADE * (7 + decade) + 1)
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] for values in found]
    most = max(int(count.max()) for count in counts)
    top = 10.0 ** np.ceil(np.log10(most * 1.05))
    x = Axis("cosine with the reference's descriptor", edges[-1], edges[0], _cosine_ticks(decade), log=True)
    tens = tuple((10.0**power, f"{10**power:,}") for power in range(round(np.log10(top)) + 1))
    y = Axis(f"{branch} images", _NONE, float(top), tens, log=True)
    said = ", ".join(
        f"{candidate.name} from {cosine(_agreement(candidate, branch).smallest_cosine)} to 1, mean "
        f"{cosine(_agreement(candidate, branch).mean_cosine)}"
        for candidate in result.candidates
    )
    plot = Plot(f"Cosines of the {branch} branch's descriptors with the reference's: {said}.", x, y)
    for number, (count, floor) in enumerate(zip(counts, floors, strict=True)):
        corners = np.repeat(edges, 2)[1:-1]
        heights = np.repeat(np.maximum(count, _NONE), 2)
        plot.band(corners, np.full(len(corners), _NONE), heights, series(number))
        plot.line(corners, heights, f"step {series(number)}")
        plot.line([floor, floor], [_NONE, top], f"floor {series(number)}")
    return plot.drawn()


def rank_plot(before: Ranking, after: Ranking, name: str) -> str:
    """Queries by the rank of their tile before and after: above the diagonal it fell."""
    last = 1 + int(max(before.rank.max(), after.rank.max(), 1))
    edges = _rank_edges(last)
    counts = np.histogram2d(before.rank + 1.0, after.rank + 1.0, bins=(edges, edges))[0].astype(int)
    worse, better = (int(np.count_nonzero(order)) for order in (after.rank > before.rank, after.rank < before.rank))
    ticks = _tens(last)
    plot = Plot(
        f"Rank of the right tile, {name} against the reference: worse for {counted(worse, 'query', 'queries')}, better "
        f"for {better:,}, the same for {len(before.rank) - worse - better:,}.",
        Axis("rank before", edges[0], edges[-1], ticks, log=True),
        Axis("rank after", edges[0], edges[-1], ticks, log=True),
        height=350,
    )
    plot.line([edges[0], edges[-1]], [edges[0], edges[-1]], "zero")
    # A cell of one rank stands at it, a wider one halfway along the scale.
    middles = np.where(np.diff(edges) > 1.01, np.sqrt(edges[:-1] * edges[1:]), edges[1:] - 0.5)
    for across, down in np.argwhere(counts):
        kind = "same" if across == down else "worse" if down > across else "better"
        plot.dot(middles[across], middles[down], f"cell {kind}", size_of(counts[across, down]))
    plot.words(edges[0] * 1.08, edges[-1] / 1.25, f"worse: {worse:,}", "worse")
    plot.words(edges[-1] / 1.08, edges[0] * 1.12, f"better: {better:,}", "better", anchor="end")
    return plot.drawn()


def size_of(queries: int) -> float:
    """A dot's radius: its area grows with the number's digits, for one dot holds nearly all queries."""
    return float(3.2 * np.sqrt(1 + 2 * np.log10(queries)))


def sizes(queries: int) -> list[int]:
    """The numbers of queries that a legend of `size_of` shows for so many in all."""
    return [size for size in _SIZES if size <= queries]


def layer_plot(layers: Sequence[LayerAgreement], branch: Branch, kind: str) -> str:
    """The cosine of every node's output with the float32 graph's, in the graph's order."""
    gone = np.clip([1 - layer.cosine for layer in layers], _NEAREST, 1.0)
    decade = min(0, int(np.ceil(np.log10(max(gone.max(), 10 * _NEAREST)) + 1e-9)))
    last = max(len(layers) - 1, 1)
    x = Axis(f"nodes of the {branch} graph, in its order", 0, last, ((0, "1"), (last, f"{last + 1:,}")))
    y = Axis("cosine", 10.0**decade, _NEAREST, _cosine_ticks(decade), log=True)
    worst = min(layers, key=lambda layer: layer.cosine)
    plot = Plot(
        f"Cosine of each node's output with the float32 graph's, {branch} branch; lowest {cosine(worst.cosine)} at "
        f"{worst.node}.",
        x,
        y,
        left=70,
    )
    plot.line(np.arange(len(layers)), gone, kind)
    return plot.drawn()


def _agreement(candidate: Candidate, branch: Branch) -> BranchAgreement:
    return next(each for each in candidate.branches if each.branch == branch)


def _ks(references: int) -> NDArray[np.int64]:
    """K = 1 to N - 1: at K = N every query is found, whatever the model."""
    return np.unique(np.geomspace(1, max(references - 1, 1), _KS).round().astype(np.int64))


def _k_axis(ks: NDArray[np.int64]) -> Axis:
    last = max(int(ks[-1]), 2)
    return Axis("K, nearest tiles looked at", 1, last, _tens(last), log=True)


def _tens(last: int) -> tuple[tuple[float, str], ...]:
    """1, 2, 5, 10, 20 and so on up to `last`; tens alone where those would crowd."""
    steps = (1, 2, 5) if last < 1000 else (1,)
    every = (step * 10**power for power in range(len(str(last))) for step in steps)
    return tuple((float(value), f"{value:,}") for value in every if value <= last)


def _round(low: float, high: float) -> tuple[tuple[float, str], ...]:
    signs = "+" if low < 0 else ""
    return tuple((value, signed(f"{value:{signs}g}")) for value in round_ticks(low, high))


def _cosine_ticks(decade: int) -> tuple[tuple[float, str], ...]:
    """From the distance of 1 to the power of ten `decade` on, at 0, 0.9, 0.99 and so on to what float32 can tell."""
    return tuple((10.0**power, _cosine_label(power)) for power in range(decade, -8, -1))


def _cosine_label(power: int) -> str:
    """What is written at 1 - 10**power. Long labels leave one out between them, and the last one is 1 to float32."""
    if power >= -4:
        return f"{1 - 10.0**power:.{-power}f}"
    return {-5: "", -6: "1−10⁻⁶", -7: "1"}[power]


def _rank_edges(last: int) -> NDArray[np.float64]:
    """Edges of cells of ranks 1 to `last`: one rank each up to ten, then about eight to each tenfold."""
    single = np.arange(0.5, min(last, _SINGLE_RANKS) + 1)
    if last <= _SINGLE_RANKS:
        return single
    wider = np.geomspace(single[-1], last + 0.5, 1 + int(np.ceil(8 * np.log10((last + 0.5) / single[-1]))))
    return np.concatenate([single, np.unique(np.rint(wider[1:] - 0.5)) + 0.5]).astype(np.float64)
