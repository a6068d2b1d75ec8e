"""Answers over the gallery's tiles: where they lie, how sure they are, and where the filter was lost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from geodtr.export.plots.colours import LIGHT
from geodtr.export.plots.files import save_picture
from geodtr.export.plots.maps import Floats, new_map
from geodtr.export.plots.theme import themed
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.localization.result import Waypoint
from geodtr.runtime.localization.writers import collected, runs
from geodtr.runtime.sources.coverage import frame_of

TILE, SURE = "#b4b9bf", "#c4dbf0"
COLOURS = {"fix": LIGHT["s1"], "tracking": LIGHT["s1"], "searching": "#de8c14", "lost": LIGHT["bad"]}
_LEAST = 50.0
"""Metres shown at least."""
_EDGE = 0.05
"""Of the spread of the answers, around them."""


@contextmanager
def track_picture(
    path: Path, tile_lat: Floats, tile_lon: Floats, *, track: bool, live: bool = False
) -> Iterator[Callable[[Waypoint], object]]:
    """The function that takes each answer for a picture of them all, drawn to `path` in the end; see `track_plot`, and
    `live` at `waypoint_file`.
    """

    def draw(waypoints: list[Waypoint]) -> None:
        save_picture(track_plot(waypoints, tile_lat, tile_lon, track=track), path)

    with collected(draw, live=live) as take:
        yield take


@themed
def track_plot(waypoints: Sequence[Waypoint], tile_lat: Floats, tile_lon: Floats, *, track: bool) -> Figure:
    """A square map as wide as the answers are spread.

    Grey dots are tiles, in degrees [N] (NaN where unknown). Blue is a fix or a tracking filter, with discs of 95 %,
    orange one that searches, red one that is lost. A `track` is joined by a line, broken wherever the filter was not
    tracking. Raises ConfigError when no answer has a position.
    """
    placed = [waypoint for waypoint in waypoints if waypoint.lat is not None]
    if not placed:
        raise ConfigError("No answer has a position, so there is nothing to draw. Search where there are tiles.")
    frame = frame_of(*_places_of(placed))
    wide, high = frame.size
    side = max(wide, high, _LEAST) * (1 + 2 * _EDGE)
    drawn = new_map(frame, ((side - wide) / 2, (side - high) / 2))
    axes = drawn.axes

    known = np.isfinite(tile_lat) & np.isfinite(tile_lon)
    tiles = drawn.place(tile_lat[known], tile_lon[known])
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    tiles = tiles[((left, bottom) <= tiles).all(axis=1) & (tiles <= (right, top)).all(axis=1)]
    if len(tiles):
        axes.plot(*tiles.T, "o", color=TILE, markersize=3, markeredgewidth=0, zorder=1, label="tile")
    sure = [waypoint for waypoint in placed if waypoint.reliable and waypoint.within_95_m is not None]
    if sure:
        across = [2 * (waypoint.within_95_m or 0) for waypoint in sure]
        discs = EllipseCollection(
            *(across, across, np.zeros(len(sure))),
            units="xy",
            offsets=drawn.place(*_places_of(sure)),
            offset_transform=axes.transData,
            facecolors=SURE,
        )
        axes.add_collection(discs, autolim=False)
        axes.plot([], [], "o", color=SURE, markersize=12, label="95 % within")
    if track:
        for run in runs(waypoints):
            axes.plot(*drawn.place(*_places_of(run)).T, color=COLOURS["tracking"], zorder=2)
    for state, colour in COLOURS.items():
        at = drawn.place(*_places_of([waypoint for waypoint in placed if waypoint.state == state]))
        if len(at):
            axes.plot(*at.T, "o", color=colour, markersize=5, markeredgewidth=0, label=state)
    drawn.add_words("Where the images were taken", f"{len(placed)} of {len(waypoints)} answers with a position")
    return drawn.figure


def _places_of(placed: Sequence[Waypoint]) -> tuple[Floats, Floats]:
    """Their latitudes and longitudes, [N] each."""
    return np.array([point.lat for point in placed], np.float64), np.array([point.lon for point in placed], np.float64)
