"""A simulated flight: its way seen from above, and how far off positions are over time."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.theme import DOTTED, themed

Floats = NDArray[np.float64]
_COLOURS = {"true": LIGHT["ink"], "autopilot": LIGHT["s1"], "dead reckoning": LIGHT["s2"]}
_LEAST = 0.1
"""Metres: smaller errors are drawn as large as this."""
_MEANT = 10.0


@themed
def flight_plot(lines: Mapping[str, Floats], minutes: Floats, errors: Mapping[str, Floats]) -> Figure:
    """`lines`: metres east and north [N, 2] by name; `errors`: metres [M], and the `minutes` without GNSS [M]."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    above, plot = figure.subplots(1, 2)
    for name, line in lines.items():
        above.plot(*line.T, label=name, color=_COLOURS[name], linewidth=1.5)
    above.plot(*lines["true"][0], "o", color=LIGHT["ink"], markerfacecolor="white", label="start")
    above.set(aspect="equal", xlabel="metres east", ylabel="metres north", title="The way, from above")
    for name, error in errors.items():
        plot.plot(minutes, np.maximum(error, _LEAST), label=name, color=_COLOURS[name], linewidth=1.5)
    plot.axhline(_MEANT, color=LIGHT["faint"], linewidth=1, linestyle=DOTTED, label=f"{_MEANT:g} m")
    plot.set(yscale="log", xlabel="minutes without GNSS", ylabel="metres", title="How far the position is off")
    plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes in (above, plot):
        axes.legend()
    return figure
