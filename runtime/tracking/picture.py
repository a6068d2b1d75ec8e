"""A picture of answers over the gallery's tiles: where they lie, how sure they are, and where the filter was lost.

Knows places and pixels; drawn by Pillow alone, so that a vehicle can do it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files import check_new_file, new_file
from geodtr.runtime.geodesy import east_north
from geodtr.runtime.localization.result import Waypoint
from geodtr.runtime.localization.writers import collected, runs

Floats = NDArray[np.float64]

_PAPER, _TILE, _SURE, _INK = (252, 252, 250), (205, 205, 200), (196, 219, 240), (60, 60, 60)
_COLOURS = {"fix": (24, 95, 165), "tracking": (24, 95, 165), "searching": (222, 140, 20), "lost": (200, 45, 40)}
_EDGE = 40  # pixels around the map
_LEAST = 50.0  # metres shown at least


def check_picture(path: Path) -> None:
    """Raise ConfigError when `path` is not named as a PNG, OutputExists when it is taken."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'!r}; a picture is a .png.")
    check_new_file(path)


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write `picture` as PNG, durably or not at all."""
    with new_file(path) as file:
        picture.save(file, "PNG")


@contextmanager
def track_picture(
    path: Path, tile_lat: Floats, tile_lon: Floats, *, track: bool, live: bool = False
) -> Iterator[Callable[[Waypoint], object]]:
    """The function that takes each answer for a picture of them all, drawn to `path` in the end; see `draw_track`, and
    `live` at `waypoint_file`.
    """

    def draw(waypoints: list[Waypoint]) -> None:
        save_picture(path, draw_track(waypoints, tile_lat, tile_lon, track=track))

    with collected(draw, live=live) as take:
        yield take


@dataclass(frozen=True, slots=True)
class _Frame:
    """A map north up: metres east and north of the middle to pixels."""

    lat: float
    lon: float
    side: int
    metres: float

    @property
    def scale(self) -> float:
        """Pixels a metre."""
        return (self.side - 2 * _EDGE) / self.metres

    def pixels(self, lat: Floats, lon: Floats) -> list[tuple[float, float]]:
        east, north = east_north(lat, lon, self.lat, self.lon)
        middle = self.side / 2
        return list(zip((middle + self.scale * east).tolist(), (middle - self.scale * north).tolist(), strict=True))


def draw_track(
    waypoints: Sequence[Waypoint], tile_lat: Floats, tile_lon: Floats, *, track: bool, side: int = 1000
) -> Image.Image:
    """An RGB picture of `side` x `side` pixels, north up, as wide as the answers are spread, with a scale bar.

    Grey dots are tiles, in degrees [N] (NaN where unknown). Blue is a fix or a tracking filter, with discs of 95 %,
    orange one that searches, red one that is lost. A `track` is joined by a line, broken wherever the filter was not
    tracking. Raises ConfigError when no answer has a position.
    """
    placed = [waypoint for waypoint in waypoints if waypoint.lat is not None]
    if not placed:
        raise ConfigError("No answer has a position, so there is nothing to draw. Search where there are tiles.")
    lat, lon = _places_of(placed)
    frame = _frame_of(lat, lon, side)
    picture = Image.new("RGB", (side, side), _PAPER)
    draw = ImageDraw.Draw(picture)
    known = np.isfinite(tile_lat) & np.isfinite(tile_lon)
    for x, y in frame.pixels(tile_lat[known], tile_lon[known]):
        if 0 <= x < side and 0 <= y < side:
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), _TILE)

    pixels = frame.pixels(lat, lon)
    for (x, y), waypoint in zip(pixels, placed, strict=True):
        if waypoint.reliable and waypoint.within_95_m is not None:
            radius = waypoint.within_95_m * frame.scale
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), _SURE)
    if track:
        for run in runs(waypoints):
            draw.line(frame.pixels(*_places_of(run)), _COLOURS["tracking"], 2)
    for (x, y), waypoint in zip(pixels, placed, strict=True):
        draw.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), _COLOURS[waypoint.state])
    _draw_scale(draw, frame)
    return picture


def _places_of(placed: Sequence[Waypoint]) -> tuple[Floats, Floats]:
    """Their latitudes and longitudes, [N] each."""
    return np.array([point.lat for point in placed], np.float64), np.array([point.lon for point in placed], np.float64)


def _frame_of(lat: Floats, lon: Floats, side: int) -> _Frame:
    """The square around all answers, measured from the first so that a date line between them does no harm."""
    east, north = east_north(lat, lon, lat[0], lon[0])
    width = max(float(np.ptp(east)), float(np.ptp(north)), _LEAST)
    middle_lat = float(lat.min() + lat.max()) / 2
    metres_per_degree = float(east_north(lat[0], lon[0] + 1e-3, lat[0], lon[0])[0]) * 1e3
    middle_lon = float(lon[0]) + float(east.min() + east.max()) / 2 / max(metres_per_degree, 1e-9)
    return _Frame(middle_lat, middle_lon, side, width)


def _draw_scale(draw: ImageDraw.ImageDraw, frame: _Frame) -> None:
    """A bar of 1, 2 or 5 times a power of ten metres, at most a third of the map."""
    most = frame.metres / 3
    power = 10 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    x, y = _EDGE, frame.side - _EDGE / 2
    draw.line((x, y, x + length * frame.scale, y), _INK, 3)
    draw.text((x, y - 16), f"{length:,.0f} m" if length < 1000 else f"{length / 1000:,.0f} km", _INK)
