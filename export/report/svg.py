"""A plot as SVG: axes, lines, bands, dots, words. Knows coordinates and class names; the page's style sheet has the
colours, so that paper and a dark screen get their own.

The drawing is as wide as a phone's screen and scales up: its words stay legible on both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH = 360
_TOP, _RIGHT, _BOTTOM = 10, 14, 40
_LINE = 12


@dataclass(frozen=True, slots=True)
class Axis:
    """The values from `low` to `high`, on a logarithmic scale where `log`; `low` may be the larger one.

    `ticks` are values and what is written at them, if anything. Raises ValueError where the scale would have no length.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def __post_init__(self) -> None:
        if self.low == self.high or (self.log and min(self.low, self.high) <= 0):
            raise ValueError(f"no axis reaches from {self.low} to {self.high}")

    def share(self, values: ArrayLike) -> NDArray[np.float64]:
        """How far along the axis each value stands, 0 to 1; what lies beyond an end is put there."""
        low, high, at = self.low, self.high, np.asarray(values, np.float64)
        if self.log:
            low, high = log10(low), log10(high)
            at = np.log10(np.maximum(at, min(self.low, self.high)))
        return np.clip((at - low) / (high - low), 0.0, 1.0)


def round_ticks(low: float, high: float, about: int = 5) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten between `low` and `high`, about so many."""
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))
    first, last = -floor(-low / step + 1e-9), floor(high / step + 1e-9)
    return tuple(round(step * count, 10) for count in range(first, last + 1))


class Plot:
    """One drawing, filled mark by mark. `alt` says in words what it shows, for those who do not see it."""

    def __init__(self, alt: str, x: Axis, y: Axis, *, height: int = 240, left: int = 50) -> None:
        self._x, self._y = x, y
        self._left, self._right = left, WIDTH - _RIGHT
        self._top, self._bottom = _TOP, height - _BOTTOM
        self._svg = Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {height}",
                "role": "img",
                "aria-label": alt,
            },
        )
        self._draw_axes()

    def line(self, xs: ArrayLike, ys: ArrayLike, kind: str) -> None:
        """Through all points."""
        SubElement(self._svg, "path", {"class": f"line {kind}", "d": self._path(self._points(xs, ys))})

    def band(self, xs: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str) -> None:
        """The area between two lines over the same `xs`."""
        there, back = self._points(xs, low), self._points(xs, high)[::-1]
        SubElement(self._svg, "path", {"class": f"band {kind}", "d": self._path([*there, *back]) + "Z"})

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str) -> None:
        """A rectangle from corner to corner."""
        (left, one), (right, other) = self._points(x, y)
        box = {"x": min(left, right), "y": min(one, other), "width": abs(right - left), "height": abs(other - one)}
        SubElement(self._svg, "rect", {"class": kind, **{name: f"{value:.1f}" for name, value in box.items()}})

    def dot(self, x: float, y: float, kind: str, radius: float = 4.0) -> None:
        """A circle; its radius is of the page, not of the axes."""
        ((across, down),) = self._points([x], [y])
        SubElement(
            self._svg, "circle", {"class": kind, "cx": f"{across:.1f}", "cy": f"{down:.1f}", "r": f"{radius:.1f}"}
        )

    def words(self, x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> None:
        """Text that stands on, ends at or is centred over a point: `anchor` start, end, middle."""
        ((across, down),) = self._points([x], [y])
        self._text(across, down, text, anchor, kind)

    def drawn(self) -> str:
        """The `svg` element, every word in it escaped."""
        return tostring(self._svg, encoding="unicode")

    def _draw_axes(self) -> None:
        for value, label in self._x.ticks:
            ((across, _),) = self._points([value], [self._y.low])
            self._grid(across, self._top, across, self._bottom)
            if label:
                self._text(across, self._bottom + _LINE + 3, label, "middle", "tick")
        for value, label in self._y.ticks:
            ((_, down),) = self._points([self._x.low], [value])
            self._grid(self._left, down, self._right, down)
            if label:
                self._text(self._left - 5, down + 4, label, "end", "tick")
        middle = (self._left + self._right) / 2
        self._text(middle, self._bottom + 2 * _LINE + 8, self._x.label, "middle", "label")
        if self._y.label:
            down = (self._top + self._bottom) / 2
            turned = self._text(11, down, self._y.label, "middle", "label")
            turned.set("transform", f"rotate(-90 11 {down:.1f})")

    def _grid(self, x1: float, y1: float, x2: float, y2: float) -> None:
        ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        SubElement(self._svg, "line", {"class": "grid", **{name: f"{value:.1f}" for name, value in ends.items()}})

    def _text(self, x: float, y: float, text: str, anchor: str, kind: str) -> Element:
        element = SubElement(
            self._svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "class": kind}
        )
        element.text = text
        return element

    def _points(self, xs: ArrayLike, ys: ArrayLike) -> Sequence[tuple[float, float]]:
        across = self._left + self._x.share(xs) * (self._right - self._left)
        down = self._bottom - self._y.share(ys) * (self._bottom - self._top)
        return list(zip(across.tolist(), down.tolist(), strict=True))

    @staticmethod
    def _path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
