"""A frame for maps, north up: degrees at the edges, a scale bar and a legend below.

Knows positions and metres; the caller draws the content. A point of the figure is a pixel of the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray
from PIL import Image

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.numbers import clipped
from geodtr.runtime.geodesy import wrapped
from geodtr.runtime.sources.coverage import Frame, measure, positions
from geodtr.runtime.sources.tile import Tile

Floats = NDArray[np.float64]
_LONGER, _LEAST = 1000, 400
"""Pixels of a map's longer side, and of its shorter one at least."""
_LEFT, _RIGHT, _HEAD, _FOOT = 90, 30, 70, 90
_OVERLAPPING = 1.25
"""Tiles that are so many times as wide as they are apart overlap by more than rounding."""


@dataclass(frozen=True, slots=True)
class Map:
    """A figure and its axes, in metres east and north of the frame's south-western corner; `pixels` of it to a metre.

    Draw under `themed`, and end with `add_words`.
    """

    figure: Figure
    axes: Axes
    frame: Frame
    pixels: float

    def place(self, lat: Floats, lon: Floats) -> Floats:
        """Where places in degrees, [N], lie on the axes, [N, 2]."""
        return np.stack(self.frame.metres(lat, lon), axis=-1)

    @property
    def shown(self) -> tuple[Frame, tuple[int, int]]:
        """All that the axes show, and its size in pixels."""
        (left, right), (bottom, top) = self.axes.get_xlim(), self.axes.get_ylim()
        size = round((right - left) * self.pixels), round((top - bottom) * self.pixels)
        return self.frame.wider(-left, -bottom), size

    def add_picture(self, picture: Image.Image, opacity: float = 1.0, zorder: float = 0.5) -> None:
        """Draw a picture of all that is shown."""
        extent = (*self.axes.get_xlim(), *self.axes.get_ylim())
        self.axes.imshow(
            np.asarray(picture), extent=extent, interpolation="nearest", aspect="auto", alpha=opacity, zorder=zorder
        )

    def add_tiles(self, sides: Sequence[tuple[Tile, float]], colour: str, width: float) -> None:
        """Draw the edges of tiles whose sides in metres are known. Of tiles that overlap, their centres and the edges
        of one are drawn: edges that cross would look like the edges of smaller tiles.
        """
        tiles, apart = [tile for tile, _ in sides], measure([tile for tile, _ in sides]).spacing_metres
        if apart is None or median(side for _, side in sides) <= _OVERLAPPING * apart:
            self._add_edges(sides, colour, width, "tile")
            return
        at = self.place(*positions(tiles).T)
        self.axes.plot(*at.T, "o", color=colour, markersize=3, markeredgewidth=0, zorder=0.6, label="centre of a tile")
        self._add_edges([sides[len(sides) // 2]], colour, 2.0, "one of the tiles")

    def _add_edges(self, sides: Sequence[tuple[Tile, float]], colour: str, width: float, label: str) -> None:
        places = self.place(*positions([tile for tile, _ in sides]).T)
        half = np.array([side for _, side in sides])[:, None, None] / 2
        heading = np.radians([tile.heading or 0.0 for tile, _ in sides])
        up = np.stack([np.sin(heading), np.cos(heading)], axis=-1)[:, None]
        right = np.stack([np.cos(heading), -np.sin(heading)], axis=-1)[:, None]
        across, along = np.array([-1, 1, 1, -1])[:, None], np.array([-1, -1, 1, 1])[:, None]
        corners = places[:, None] + half * (across * right + along * up)
        edges = PolyCollection(
            list(corners), facecolors="none", edgecolors=colour, linewidths=width, zorder=0.6, label=label
        )
        self.axes.add_collection(edges, autolim=False)

    def add_words(self, title: str, note: str) -> None:
        """A title and a note above the map; below it a legend of everything on it that has a label."""
        width, height = self.figure.bbox.size
        title = clipped(title, round((width - _LEFT) / 9))
        self.figure.text(_LEFT / width, 1 - 12 / height, title, fontsize="large", va="top")
        note_at = (_LEFT / width, 1 - 34 / height)
        self.figure.text(*note_at, note, fontsize="small", color=LIGHT["faint"], va="top", wrap=True)
        if self.axes.get_legend_handles_labels()[0]:
            self.axes.legend(loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=3, ncols=6, borderpad=0)


def new_map(frame: Frame, border: tuple[float, float]) -> Map:
    """An empty map of `frame` and, beyond it, `border` metres to east and west, to south and north."""
    (wide, high), (east, north) = frame.size, border
    shown = np.array([wide + 2 * east, high + 2 * north])
    pixels = float(_LONGER / shown.max())
    shown = np.maximum(shown, _LEAST / pixels)
    sides = np.rint(shown * pixels)
    width, height = sides[0] + _LEFT + _RIGHT, sides[1] + _HEAD + _FOOT
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes((_LEFT / width, _FOOT / height, sides[0] / width, sides[1] / height))
    left, right = (wide - shown[0]) / 2, (wide + shown[0]) / 2
    bottom, top = (high - shown[1]) / 2, (high + shown[1]) / 2
    axes.set(xlim=(left, right), ylim=(bottom, top))
    for spine in axes.spines.values():
        spine.set(visible=True, color=LIGHT["faint"])
    per_degree = frame.metres(np.array([frame.south + 1]), np.array([frame.west + 1]))
    _label_degrees(axes.xaxis, frame.west, float(per_degree[0][0]), left, right)
    metres = float(per_degree[1][0])
    south_pole, north_pole = (-90 - frame.south) * metres, (90 - frame.south) * metres
    _label_degrees(axes.yaxis, frame.south, metres, max(bottom, south_pole), min(top, north_pole))
    _add_scale(axes, right, right - left)
    return Map(figure, axes, frame, pixels)


def _label_degrees(axis: Axis, origin: float, metres: float, low: float, high: float) -> None:
    """Ticks at round degrees of an axis in metres from `origin`; none where it goes around the Earth."""
    axis.set_ticks([])
    span = (high - low) / max(metres, 1e-9)
    if span > 360:
        return
    values = _round_values(origin + low / metres, origin + high / metres, 6)
    decimals = max(0, -floor(log10(values[1] - values[0]) + 1e-6))
    at = (values - origin) * metres
    shown = (low <= at) & (at <= high)
    labels = [f"{wrapped(value):.{decimals}f}°" for value in values[shown]]
    axis.set_ticks(at[shown], labels)


def _add_scale(axes: Axes, right: float, width: float) -> None:
    """A bar of a round number of metres below the map's right end."""
    metres = float(np.diff(_round_values(0, width, 5))[0])
    below = ScaledTranslation(0, -60 / 72, axes.figure.dpi_scale_trans)
    at = axes.get_xaxis_transform() + below
    ends = [right - metres, right]
    axes.plot(ends, [0, 0], "|-", color=LIGHT["ink"], markersize=10, markeredgewidth=2, transform=at, clip_on=False)
    label = f"{metres / 1000:,g} km" if metres >= 1000 else f"{metres:g} m"
    axes.annotate(*(label, (sum(ends) / 2, 0), (0, 7), at, "offset points"), ha="center", va="bottom", fontsize="small")


def _round_values(low: float, high: float, steps: int) -> Floats:
    """From before `low` to beyond `high` in at most so many steps of 1, 2 or 5 times a power of ten."""
    return np.asarray(MaxNLocator(steps, steps=(1, 2, 5, 10)).tick_values(low, high), np.float64)
