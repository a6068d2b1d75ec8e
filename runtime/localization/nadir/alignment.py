"""Aligns a frame with the map around a place: the offset, heading and width under which their gradients agree best.

Every heading and width that is tried is correlated with the whole window at once, by Fourier transforms. Tilt is not
modelled: what it moves is left to the matches. Works with OpenCV, which is imported inside the calls.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, product
from math import cos, pi, radians, sin

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.images.nadir import from_crop, whole_pixels
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.nadir.gradients import Field, gradient_field
from geodtr.runtime.localization.nadir.map_window import MapWindow
from geodtr.runtime.spec import Images

_LEAST_ENERGY = 0.3
"""Share of the largest energy of the map's gradients under a frame: where there is less, it agrees by chance."""

_PER_HEADING = 2
"""Places that a heading and a width contribute to a survey."""
_THREADS = 2
"""Of a survey; more would wait for memory."""

Grid = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Alignment:
    """`score`, -1 to 1, is the correlation; `middle` is what the frame's middle shows, metres east and north of the
    window's place; heading in degrees, width of the frame in metres.
    """

    score: float
    middle: Floats
    heading: float
    width: float

    def homography(self, aspect: float) -> Floats:
        """From parts of the frame's width to metres east and north of its middle, without tilt; `aspect` is its height
        in parts of its width.
        """
        angle, width = radians(self.heading), self.width
        right, down = (width * cos(angle), -width * sin(angle)), (-width * sin(angle), -width * cos(angle))
        linear = np.array([right, down]).T
        return np.vstack([np.column_stack([linear, -linear @ (0.5, aspect / 2)]), (0, 0, 1)])


@dataclass(frozen=True, slots=True)
class Ground:
    """A window of the map, and the spectra of its gradients and of their energy."""

    window: MapWindow
    gradients: Field
    energy: Grid


def spectra_of(window: MapWindow) -> Ground:
    """The window with its spectra."""
    import cv2

    field = gradient_field(window.image) * window.known[..., None]
    gradients, energy = (np.asarray(cv2.dft(each), np.float32) for each in (field, (field**2).sum(axis=2)))
    return Ground(window, gradients, energy)


class Aligner:
    """A frame, uint8 RGB [H, W, 3] of about the windows' resolution, to be aligned with them."""

    def __init__(self, frame: Images) -> None:
        self._field = gradient_field(frame)
        self._size = (frame.shape[1], frame.shape[0])

    def align(self, ground: Ground, headings: Sequence[float], widths: Sequence[float]) -> Alignment:
        """The best of the headings (degrees) at the middle one of the widths (metres), then the best width at it, and
        the best heading next to that again. The largest width fits into the window.
        """
        tried = dict[tuple[int, int], Alignment]()

        def attempt(turn: int, size: int) -> float:
            if (turn, size) not in tried:
                scores = self._scores(ground, headings[turn], widths[size])
                tried[turn, size] = self._highest(ground, scores, headings[turn], widths[size])
            return tried[turn, size].score

        size = len(widths) // 2
        turn = max(range(len(headings)), key=lambda each: attempt(each, size))
        size = max(range(len(widths)), key=lambda each: attempt(turn, each))
        near = range(max(0, turn - 1), min(len(headings), turn + 2))
        turn = max(near, key=lambda each: attempt(each, size))
        return tried[turn, size]

    def survey(
        self, ground: Ground, headings: Sequence[float], widths: Sequence[float], places: int, apart: float
    ) -> list[Alignment]:
        """The best places in the window over all headings and widths, best first, at least `apart` metres apart."""
        resolution = ground.window.resolution
        under = {width: self._under(ground, self._disc(width, resolution)) for width in widths}

        def best_at(turn: tuple[float, float]) -> list[Alignment]:
            width, heading = turn
            scores = self._scores(ground, heading, width, under[width])
            best = list[Alignment]()
            for _ in range(_PER_HEADING):
                best.append(self._highest(ground, scores, heading, width))
                _strike(scores, best[-1], apart, ground.window, self._side(width, resolution))
            return best

        with ThreadPoolExecutor(_THREADS) as pool:  # OpenCV computes without Python's lock
            alignments = list(chain.from_iterable(pool.map(best_at, product(widths, headings))))
        best_first = sorted(alignments, key=lambda each: -each.score)
        kept = list[Alignment]()
        for each in best_first:
            if all(np.hypot(*(each.middle - other.middle)) >= apart for other in kept):
                kept.append(each)
            if len(kept) == places:
                break
        return kept

    def _scores(self, ground: Ground, heading: float, width: float, under: Grid | None = None) -> Grid:
        """The correlation for each offset of the frame's square; `under`: see _under, by default of this heading."""
        crop, inside = self._crop(heading, width, self._side(width, ground.window.resolution), ground.window.resolution)
        under = self._under(ground, inside) if under is None else under
        shifts = slice(len(under))
        size = np.float32(np.sqrt((crop**2).sum()) + 1e-6)
        return np.asarray(_correlated(ground.gradients, crop)[shifts, shifts] / (under * size), np.float32)

    def _under(self, ground: Ground, inside: Grid) -> Grid:
        """The root of the energy of the ground under a frame, for each offset."""
        shifts = slice(len(ground.window.image) - len(inside) + 1)
        under = _correlated(ground.energy, inside)[shifts, shifts]
        return np.asarray(np.sqrt(np.maximum(under, _LEAST_ENERGY * under.max() + np.float32(1e-6))), np.float32)

    def _highest(self, ground: Ground, scores: Grid, heading: float, width: float) -> Alignment:
        row, column = (int(at) for at in np.unravel_index(int(np.argmax(scores)), scores.shape))
        half = self._side(width, ground.window.resolution) / 2
        middle = ground.window.metres(np.array([(column + half, row + half)]))[0]
        return Alignment(float(scores[row, column]), middle, heading % 360, width)

    def _disc(self, width: float, resolution: float) -> Grid:
        """A disc as large as the frame, which stands for it under any heading."""
        side = self._side(width, resolution)
        away = np.arange(side) + 0.5 - side / 2
        area = self._size[1] / self._size[0] * (width / resolution) ** 2
        return np.asarray(away[:, None] ** 2 + away**2 < area / pi, np.float32)

    def _side(self, width: float, resolution: float) -> int:
        """Pixels of a square that holds the frame at any heading."""
        return int(np.ceil(np.hypot(*self._size) * width / self._size[0] / resolution))

    def _crop(self, heading: float, width: float, side: int, resolution: float) -> tuple[Field, Grid]:
        """The frame's gradients, north up, in a square of `side` pixels, and which pixels it shows."""
        import cv2

        to_frame = whole_pixels(from_crop(self._size, width / self._size[0], heading, side, resolution))
        how = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        crop = cv2.warpAffine(self._field, to_frame, (side, side), flags=how)
        inside = cv2.warpAffine(np.ones(self._size[::-1], np.float32), to_frame, (side, side), flags=how)
        angle = radians(2 * heading)
        turned = np.array([(cos(angle), sin(angle)), (-sin(angle), cos(angle))], np.float32)
        return np.asarray(crop @ turned, np.float32), np.asarray(inside, np.float32)


def _strike(scores: Grid, taken: Alignment, apart: float, window: MapWindow, side: int) -> None:
    """Leave the offsets next to one that was taken out of the scores."""
    column, row = taken.middle * (1, -1) / window.resolution + (len(window.image) - side) / 2
    reach = apart / window.resolution
    rows, columns = (slice(max(0, int(at - reach)), int(at + reach) + 1) for at in (row, column))
    scores[rows, columns] = -1


def _correlated(spectrum: NDArray[np.float32], kernel: Grid | Field) -> Grid:
    """The correlation of a window, by its spectrum, with a kernel, for each shift."""
    import cv2

    count = len(spectrum)
    padded = np.zeros((count, count, *kernel.shape[2:]), np.float32)
    padded[: len(kernel), : len(kernel)] = kernel
    # With nonzeroRows, OpenCV leaves its fast transforms out, and takes three times as long.
    product = cv2.mulSpectrums(spectrum, cv2.dft(padded), 0, conjB=True)
    scores = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)
    return np.asarray(scores if kernel.ndim == 2 else scores[..., 0], np.float32)
