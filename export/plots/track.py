"""Answers on the map of the gallery's tiles: where they lie, how sure they are, and where the filter was lost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageDraw

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.files import save_picture
from geodtr.export.plots.maps import Floats, Map, new_map
from geodtr.export.plots.numbers import clipped
from geodtr.export.plots.theme import themed
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.ground import ground_of
from geodtr.runtime.localization.output.web_map import side_shown
from geodtr.runtime.localization.output.writers import collected
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.sources.coverage import Frame, frame_of
from geodtr.runtime.sources.mosaic import Mosaic

Ground = Callable[[Frame, tuple[int, int]], Mosaic]

TILE, CANDIDATE = "#b4b9bf", LIGHT["s3"]
SURE = {95: "#c4dbf0", 68: "#93bfe6"}
"""The colours of the ground within which so many per cent of the answers lie."""
COLOURS = {"fix": LIGHT["s1"], "tracking": LIGHT["s1"], "searching": "#de8c14", "lost": LIGHT["bad"]}
_FADED = 0.6
"""The opacity of the ground, and of what lies on it."""
_LEGIBLE = 10
"""Pixels a side that tiles must have for their edges to be drawn."""
_MOST_CIRCLES = 200
_FEW = 12
_BEYOND = 1e6
"""Pixels: a circle that reaches further is cut there, for Pillow goes along all of it."""


@contextmanager
def track_picture(
    path: Path, gallery: Gallery, *, track: bool, live: bool = False
) -> Iterator[Callable[[Waypoint], object]]:
    """The function that takes each answer for a picture of them all, drawn to `path` in the end; see `track_plot`, and
    `live` at `waypoint_file`.
    """

    def draw(waypoints: list[Waypoint]) -> None:
        ground = partial(ground_of, gallery)
        save_picture(track_plot(waypoints, gallery.lat, gallery.lon, track=track, ground=ground), path)

    with collected(draw, live=live) as take:
        yield take


@themed
def track_plot(
    waypoints: Sequence[Waypoint], tile_lat: Floats, tile_lon: Floats, *, track: bool, ground: Ground | None = None
) -> Figure:
    """A square map as wide as the answers are spread, on the `ground` where its files can be read.

    Tiles are grey edges, or dots at their centres in degrees [N] (NaN where unknown). Blue is a fix or a tracking
    filter, on the ground within its 68 and 95 %, orange one that searches, red one that is lost. A `track` is a line in
    these colours. Raises ConfigError when no answer has a position.
    """
    placed = [waypoint for waypoint in waypoints if waypoint.lat is not None]
    if not placed:
        raise ConfigError("No answer has a position, so there is nothing to draw. Search where there are tiles.")
    frame = frame_of(*_places_of(placed))
    side = side_shown(frame, placed)
    wide, high = frame.size
    drawn = new_map(frame, ((side - wide) / 2, (side - high) / 2))
    note = f"{len(placed)} of {len(waypoints)} answers with a position"
    mosaic = None if ground is None else ground(*drawn.shown)
    shows_ground = mosaic is not None and mosaic.image.getchannel("A").getbbox() is not None
    if mosaic is not None and shows_ground:
        drawn.add_picture(mosaic.image, _FADED)
    elif mosaic is not None and mosaic.unreadable:
        note += f"; no map behind them: {mosaic.unreadable[0][1]}"
    legible = mosaic is not None and any(length * drawn.pixels >= _LEGIBLE for _, length in mosaic.sides)
    if mosaic is not None and legible:
        drawn.add_tiles(mosaic.sides, TILE, 0.8)
    else:
        _draw_tiles(drawn, tile_lat, tile_lon)
    _draw_doubt(drawn, placed, _FADED if shows_ground else 1.0, circles=not track)
    if track:
        _draw_line(drawn, placed)
    else:
        _draw_candidates(drawn, placed)
    for state, colour in COLOURS.items():
        at = drawn.place(*_places_of([waypoint for waypoint in placed if waypoint.state == state]))
        if len(at) and not track:
            drawn.axes.plot(*at.T, "o", color=colour, markersize=7, markeredgecolor="white", label=state, zorder=3)
        elif len(at):
            drawn.axes.plot([], [], color=colour, linewidth=3, label=state)
    drawn.add_words("Where the images were taken", note)
    return drawn.figure


def _draw_tiles(drawn: Map, lat: Floats, lon: Floats) -> None:
    known = np.isfinite(lat) & np.isfinite(lon)
    tiles = drawn.place(lat[known], lon[known])
    (left, right), (bottom, top) = drawn.axes.get_xlim(), drawn.axes.get_ylim()
    tiles = tiles[((left, bottom) <= tiles).all(axis=1) & (tiles <= (right, top)).all(axis=1)]
    if len(tiles):
        drawn.axes.plot(
            *tiles.T, "o", color=TILE, markersize=3, markeredgewidth=0, zorder=1.5, label="centre of a tile"
        )


def _draw_doubt(drawn: Map, placed: Sequence[Waypoint], opacity: float, *, circles: bool) -> None:
    """The ground within each radius as one area: discs over discs would darken each other."""
    (left, _), (_, top) = drawn.axes.get_xlim(), drawn.axes.get_ylim()
    for share, colour in SURE.items():
        sure = [(waypoint, radius) for waypoint in placed if waypoint.reliable and (radius := _radius(waypoint, share))]
        if not sure:
            continue
        area = Image.new("RGBA", drawn.shown[1])
        pen = ImageDraw.Draw(area)
        at = drawn.place(*_places_of([waypoint for waypoint, _ in sure]))
        for (x, y), (_, radius) in zip(at, sure, strict=True):
            box = (x - radius - left, top - y - radius, x + radius - left, top - y + radius)
            within = [max(-_BEYOND, min(_BEYOND, edge * drawn.pixels)) for edge in box]
            pen.ellipse(within, fill=(*ImageColor.getrgb(colour), 255))
        drawn.add_picture(area, opacity, zorder=1)
        drawn.axes.plot([], [], "o", color=colour, markersize=12, label=f"{share} % within")
        if circles and len(sure) <= _MOST_CIRCLES:
            turn = np.linspace(0, 2 * np.pi, 73)
            circle = np.stack([np.sin(turn), np.cos(turn)], axis=-1)
            rings = [place + radius * circle for place, (_, radius) in zip(at, sure, strict=True)]
            edges = LineCollection(rings, colors=COLOURS["fix"], linewidths=1.0 if share == 68 else 0.6, zorder=1.7)
            drawn.axes.add_collection(edges, autolim=False)


def _radius(waypoint: Waypoint, share: int) -> float | None:
    return waypoint.within_68_m if share == 68 else waypoint.within_95_m


def _draw_line(drawn: Map, placed: Sequence[Waypoint]) -> None:
    """From answer to answer, in the colour of the state at its end; thick between two of a tracking filter."""
    at = drawn.place(*_places_of(placed))
    steps = [
        (np.stack(ends), "tracking" if a.reliable and b.reliable else b.state if not b.reliable else a.state)
        for ends, (a, b) in zip(pairwise(at), pairwise(placed), strict=True)
    ]
    for state, width in (("searching", 1.0), ("lost", 1.0), ("tracking", 3.0)):
        lines = [ends for ends, of in steps if of == state]
        if lines:
            style = "solid" if state == "tracking" else "dotted"
            drawn.axes.add_collection(
                LineCollection(lines, colors=COLOURS[state], linewidths=width, linestyles=style, zorder=2),
                autolim=False,
            )
        alone = np.array([place for place, each in zip(at, placed, strict=True) if each.state == state])
        if len(alone) and (state != "tracking" or not lines):
            drawn.axes.plot(*alone.T, "o", color=COLOURS[state], markersize=3.5, markeredgewidth=0, zorder=2.2)
    for (x, y), marker, label in ((at[0], "o", "start"), (at[-1], "s", "end")):
        drawn.axes.plot(x, y, marker, color=LIGHT["ink"], markerfacecolor="white", markersize=8, zorder=4, label=label)


def _draw_candidates(drawn: Map, placed: Sequence[Waypoint]) -> None:
    """Crosses at each answer's tiles; of a few answers their images' names, too."""
    places = [each.place for waypoint in placed for each in waypoint.candidates if each.place.lat is not None]
    if places and len(placed) <= _MOST_CIRCLES:
        lat, lon = (np.array([getattr(place, name) for place in places], np.float64) for name in ("lat", "lon"))
        drawn.axes.plot(*drawn.place(lat, lon).T, "x", color=CANDIDATE, markersize=6, zorder=2.5, label="candidate")
    if len(placed) <= _FEW:
        for place, waypoint in zip(drawn.place(*_places_of(placed)), placed, strict=True):
            name = clipped(Path(waypoint.image or "").name, 24)
            drawn.axes.annotate(name, place, (7, 5), textcoords="offset points", fontsize="small", zorder=4)


def _places_of(placed: Sequence[Waypoint]) -> tuple[Floats, Floats]:
    """Their latitudes and longitudes, [N] each."""
    return np.array([point.lat for point in placed], np.float64), np.array([point.lon for point in placed], np.float64)
