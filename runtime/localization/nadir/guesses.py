"""Where a nadir frame may be: everywhere in a small prior or on a small map, and where the first stage found it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, exp, hypot, log, sqrt
from threading import Lock

import numpy as np
from PIL import Image

from geodtr.runtime.geodesy import Near, distance
from geodtr.runtime.localization.nadir.alignment import Aligner, Ground, spectra_of
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.map_window import MapWindows, Place, place_at, step_of
from geodtr.runtime.localization.waypoint import Candidate
from geodtr.runtime.sources.tile import Tile

_SURVEYS, _MOST_SURVEYED = (40, 56), 420
"""Pixels of the frame's diagonal where it is sought everywhere, and of the largest window in which it is."""
_SURVEY_TURN, _SURVEY_WIDTH, _SURVEY_REACH = 10.0, 0.24, 0.25
"""Degrees and share from one heading and width to the next there; and how far a place found there may be off, of the
frame's diagonal.
"""
_SEARCHED = 1.4
"""Sides of a tile around the place found in which the frame's middle is sought."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A place where the frame's middle may be, within `reach` metres across, and headings and widths to try, the middle
    ones the likeliest. `tile` is the nearest.
    """

    place: Place
    headings: Sequence[float]
    widths: Sequence[float]
    reach: float
    tile: Tile

    @property
    def width(self) -> float:
        return self.widths[len(self.widths) // 2]


class Guesses:
    """Guesses on one map, whose tiles are `tile_metres` wide. Safe to use from several threads."""

    def __init__(self, windows: MapWindows, tile_metres: float, nadir: NadirOptions, most: int) -> None:
        """`most` is how many places are guessed by surveys, and by the candidates."""
        self._map, self._tile, self._nadir, self._most = windows, tile_metres, nadir, most
        self._extent = windows.extent()
        self._lock = Lock()
        self._surveyed: dict[tuple[int, float], Ground] = {}

    def of_candidates(self, candidates: Sequence[Candidate]) -> Iterator[Guess]:
        """The best candidate of each place, best first."""
        places = list[Place]()
        for candidate in candidates:
            tile = candidate.place
            if tile.lat is None or tile.lon is None or candidate.ground_metres is None:
                continue
            place = tile.lat, tile.lon
            if any(distance(*place, *other) <= self._tile / 2 for other in places):
                continue
            places.append(place)
            turns = [(candidate.heading or 0.0) + turn for turn in self._nadir.finer_headings]
            sizes = [candidate.ground_metres * factor for factor in self._nadir.finer_widths]
            yield Guess(place, turns, sizes, _SEARCHED * (candidate.tile_metres or self._tile), tile)
            if len(places) == self._most:
                break

    def survey(self, frame: Image.Image, width_range: tuple[float, float], near: Near | None) -> Iterator[Guess]:
        """Where the frame may be within a prior, or on the map, looked for coarsely and then more finely; nothing where
        that is too large.
        """
        for pixels in _SURVEYS:
            yield from self._survey(frame, width_range, near, pixels)

    def _survey(
        self, frame: Image.Image, width_range: tuple[float, float], near: Near | None, pixels: int
    ) -> Iterator[Guess]:
        place, metres = self._extent if near is None else ((near.lat, near.lon), 2 * near.radius)
        (low, high), diagonal = width_range, hypot(*frame.size) / frame.width
        resolution = step_of(diagonal * sqrt(low * high) / pixels, 2)
        side = ceil((metres + diagonal * high) / resolution)
        if not metres or side > _MOST_SURVEYED:
            return
        ground = self._ground(place, side, resolution, keep=near is None)
        count = max(1, ceil(log(high / low) / _SURVEY_WIDTH))
        sizes = [low * (high / low) ** ((each + 0.5) / count) for each in range(count)]
        known = self._nadir.heading
        turns = np.arange(0, 360, _SURVEY_TURN) if known is None else known + np.array(self._nadir.finer_headings)
        aligner = Aligner(np.asarray(shrunk(frame, 1.2 * pixels)))
        for aligned in aligner.survey(ground, turns.tolist(), sizes, ceil(self._most / len(_SURVEYS)), self._tile / 2):
            there = place_at(place, aligned.middle)
            headings = [aligned.heading + step * _SURVEY_TURN for step in (-0.5, 0.0, 0.5)]
            widths = [aligned.width * exp(step * _SURVEY_WIDTH) for step in (-0.5, -0.25, 0.0, 0.25, 0.5)]
            yield Guess(there, headings, widths, _SURVEY_REACH * diagonal * aligned.width, self._map.nearest(there))

    def _ground(self, place: Place, side: int, resolution: float, *, keep: bool) -> Ground:
        """The ground that is surveyed; of the whole map it is kept."""
        import cv2

        side = cv2.getOptimalDFTSize(side)
        with self._lock:
            ground = self._surveyed.get((side, resolution))
        if ground is None or not keep:
            ground = spectra_of(self._map.cut(place, side, resolution, resolution))
        if keep:
            with self._lock:
                self._surveyed[side, resolution] = ground
        return ground


def shrunk(frame: Image.Image, diagonal: float) -> Image.Image:
    """The frame with a diagonal of at most so many pixels."""
    factor = min(1.0, diagonal / hypot(*frame.size))
    width, height = (max(1, round(length * factor)) for length in frame.size)
    return frame.resize((width, height), Image.Resampling.BOX, reducing_gap=3.0) if factor < 1 else frame
