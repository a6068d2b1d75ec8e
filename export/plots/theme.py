"""One look for everything that matplotlib plots, as a PNG file or inside a page: type, lines and ticks."""

import re
from collections.abc import Callable
from io import StringIO
from math import log10
from typing import Literal
from xml.etree.ElementTree import fromstring, tostring

from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from geodtr.export.plots.colours import LIGHT
from geodtr.runtime.files.foreign_text import escape_controls

_RC = {
    "font.size": 12,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a name may hold dollar signs
    "figure.dpi": 150,
    "axes.edgecolor": LIGHT["edge"],
    "axes.labelcolor": LIGHT["faint"],
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "grid.color": LIGHT["edge"],
    "xtick.color": LIGHT["faint"],
    "ytick.color": LIGHT["faint"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "lines.linewidth": 2,
    "lines.scale_dashes": False,
    "legend.frameon": False,
    "legend.fontsize": "small",
    "svg.fonttype": "none",
}
themed = style.context(["default", _RC])
"""Decorates functions that draw or save: the look does not depend on the user's own settings of matplotlib."""

BAND = 0.12
"""The opacity of an interval's band."""
DASHED = (0, (5, 4))
DOTTED = (0, (3, 3))


def new_plot(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one plot, its sides in points."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def count_axis(axes: Axes, which: Literal["x", "y"], high: float) -> None:
    """A logarithmic axis of counts or ranks up to `high`: ticks at 1, 2, 5, 10 and so on; at powers of ten alone where
    those would crowd.
    """
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    crowded = 3 * log10(high) > axis.get_tick_space() + 1
    axis.set_major_locator(LogLocator(subs=(1,) if crowded else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    label_ticks(axis, lambda value: f"{value:,.0f}" if value >= 1 else "")


def label_ticks(axis: Axis, label: Callable[[float], str]) -> None:
    """Write at each tick what `label` makes of its value."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))


@themed
def escape_texts(figure: Figure) -> None:
    """Escape controls in the figure's texts: of a file name that is not UTF-8, matplotlib draws nothing and fails."""
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_text("\n".join(map(escape_controls, text.get_text().split("\n"))))


def inline_svg(figure: Figure, alt: str) -> str:
    """The figure as an `svg` element for a page whose style sheet has the variables of `css_variables`.

    Same figure, same bytes. `alt` describes the content in words for screen readers; no two figures of a page may
    share it, because the names of their parts are derived from it.
    """
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    escape_texts(figure)
    with rc_context({"svg.hashsalt": alt}), StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
        root = fromstring(file.getvalue())
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": escape_controls(alt)}
    root.remove(root[0])  # matplotlib's own style sheet, which a page would take for all of its elements
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if element.tag == "g":
            element.attrib.pop("id", None)  # axes_1 in every figure
        element.attrib = {name.rpartition("}")[2]: _for_a_page(value) for name, value in element.attrib.items()}
        element.tail = None
    root.set("aria-label", alt)
    return tostring(root, encoding="unicode")


_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_REWRITTEN = re.compile(r"#[0-9a-f]{6}\b|font-family: [^;]*;? ?|\d+\.\d{3,}")


def _for_a_page(value: str) -> str:
    """Colours by their names, for paper and a dark screen to have their own; the page's type; hundredths of a point."""

    def rewritten(found: "re.Match[str]") -> str:
        text = found[0]
        if text.startswith("#"):
            return _VARIABLES.get(text, text)
        return "" if text.startswith("font-family") else f"{float(text):.2f}"

    return _REWRITTEN.sub(rewritten, value)
