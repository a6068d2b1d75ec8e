"""Matching a nadir frame with the map: small patches of the frame, each sought where it is supposed to be.

The first stage and the alignment have found place, heading and scale nearly, so frame and map come north up and at one
resolution. Patches on a grid are compared by their gradients' directions, with OpenCV, which is imported inside the
calls. Features that are detected in each image alone (SIFT) were tried: slower, less exact, and they fix fewer frames,
as season and light change which points stand out, and which side of an edge is the darker one.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.nadir.gradients import gradient_field
from geodtr.runtime.localization.nadir.hypotheses import peak
from geodtr.runtime.spec import Images

_PATCH = 24
"""Pixels of a patch's side."""
_PATCHES, _LEAST_STEP = 150, 6
"""About as many patches are laid over a frame, at least so many pixels apart."""
_LEAST_INSIDE = 0.9
"""Share of a patch that the frame shows."""
_LEAST_ENERGY = 0.05
"""Mean square of a patch's gradients: one with less is a bare field."""
_LEAST_CORRELATION = 0.35


@dataclass(frozen=True, slots=True)
class Matches:
    """Points of the frame and of the map that show the same, pixels [M, 2] each. Of the matches the share `independent`
    counts as independent of the others: patches that overlap are wrong together.
    """

    frame: Floats
    ground: Floats
    independent: float = 1.0


class Matcher(Protocol):
    """Finds what a frame and the map have in common; both are north up and of one resolution.

    `frame`, uint8 RGB [S, S, 3], is shown where `inside`, bool [S, S]; the map, uint8 RGB, has `reach` pixels more on
    each side: as far as a point of the frame may be from where it is supposed to be. A learned matcher fits behind it.
    """

    def match(self, frame: Images, inside: NDArray[np.bool_], ground: Images, reach: int) -> Matches: ...


@dataclass(frozen=True, slots=True)
class Patches:
    """A Matcher by patches, correlated on gradient directions, to a fraction of a pixel."""

    def match(self, frame: Images, inside: NDArray[np.bool_], ground: Images, reach: int) -> Matches:
        import cv2

        ours = gradient_field(frame) * inside[..., None]
        theirs = gradient_field(ground)
        step = max(_LEAST_STEP, round(sqrt(inside.sum() / _PATCHES)))
        starts = range(0, len(frame) - _PATCH + 1, step)
        points, places = list[tuple[float, float]](), list[tuple[float, float]]()
        for top in starts:
            for left in starts:
                here = slice(top, top + _PATCH), slice(left, left + _PATCH)
                patch = ours[here]
                if np.count_nonzero(inside[here]) < _LEAST_INSIDE * _PATCH**2:
                    continue
                if np.vdot(patch, patch) < _LEAST_ENERGY * _PATCH**2:
                    continue
                size = _PATCH + 2 * reach
                there = theirs[top : top + size, left : left + size]
                scores = np.asarray(cv2.matchTemplate(there, patch, cv2.TM_CCORR_NORMED), np.float32)
                _, most, _, (column, row) = cv2.minMaxLoc(scores)
                at_edge = not (0 < row < 2 * reach and 0 < column < 2 * reach)
                if at_edge or most < _LEAST_CORRELATION:
                    continue
                across, down = peak(scores[row, column - 1 : column + 2]), peak(scores[row - 1 : row + 2, column])
                middle = _PATCH / 2
                points.append((left + middle, top + middle))
                places.append((left + column + across + middle, top + row + down + middle))
        ours_at, theirs_at = (np.array(each, np.float64).reshape(-1, 2) for each in (points, places))
        return Matches(ours_at, theirs_at, independent=min(1.0, (step / _PATCH) ** 2))
