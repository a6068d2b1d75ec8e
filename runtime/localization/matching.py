"""Matching a nadir frame with a map's tiles by SIFT, with OpenCV, which is imported inside the calls.

The first stage has found heading and scale nearly, so frame and tile come north up and at one resolution. Features
are therefore compared without an orientation of their own, and only near where they are supposed to be: both tell many
more of them apart than a search of the whole frame does.
Sources: Lowe, Distinctive Image Features from Scale-Invariant Keypoints, IJCV 2004; RootSIFT: Arandjelović and
Zisserman, CVPR 2012.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.spec import Images

_FEATURES = 2000
_CONTRAST = 0.015
_EDGES = 20.0
_SMALLEST = 8.0
"""Pixels: the support of a smaller feature is enlarged to this, which describes more of its surroundings."""
_RATIO = 0.85
"""Lowe's ratio: how much farther the second nearest descriptor must be than the nearest."""
_SAME = 4.0
"""Pixels within which two features of the frame are one and the same for the ratio."""
_FAR = np.float32(9.0)
"""More than the squared distance between any two descriptors."""

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Matches:
    """Points of the frame and of the tile that show the same, pixels [M, 2] each."""

    frame: Floats
    tile: Floats


class Matcher(Protocol[F]):
    """Finds what a frame and a tile have in common; both are north up and of one resolution.

    `describe` prepares an image, uint8 RGB [H, W, 3]; a tile's result is kept for the next frame. `match` compares: the
    tile's corner is supposed to lie at `corner` in the frame, wrong by up to `reach` pixels. A learned matcher fits
    behind it: it may ignore both.
    """

    def describe(self, image: Images) -> F: ...

    def match(self, frame: F, tile: F, corner: Floats, reach: float) -> Matches: ...


@dataclass(frozen=True, slots=True)
class Features:
    """Places in pixels [N, 2] and descriptors, float32 unit rows [N, 128]."""

    points: Floats
    descriptors: NDArray[np.float32]


class Sift:
    """A Matcher by upright RootSIFT features."""

    def describe(self, image: Images) -> Features:
        import cv2

        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        detector = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=_CONTRAST, edgeThreshold=_EDGES)
        detected = {
            (round(point.pt[0], 1), round(point.pt[1], 1), point.octave): point for point in detector.detect(grey, None)
        }
        upright = [
            cv2.KeyPoint(each.pt[0], each.pt[1], max(each.size, _SMALLEST), 0, each.response, each.octave)
            for each in detected.values()
        ]
        if not upright:
            return Features(np.empty((0, 2)), np.empty((0, 128), np.float32))
        kept, descriptors = detector.compute(grey, upright)
        total = descriptors.sum(axis=1, keepdims=True) + np.float32(1e-6)
        return Features(np.array([each.pt for each in kept]), np.sqrt(descriptors / total, dtype=np.float32))

    def match(self, frame: Features, tile: Features, corner: Floats, reach: float) -> Matches:
        """Pairs whose nearest descriptor within reach is nearer than any other's there by Lowe's ratio."""
        if not len(frame.points) or not len(tile.points):
            return Matches(np.empty((0, 2)), np.empty((0, 2)))
        places = frame.points.astype(np.float32)
        supposed = (tile.points + corner).astype(np.float32)
        apart = 2 - 2 * (tile.descriptors @ frame.descriptors.T)
        for axis in range(2):
            apart[np.abs(supposed[:, axis, None] - places[:, axis]) > reach] = _FAR
        rows = np.arange(len(supposed))
        nearest = np.argmin(apart, axis=1)
        best = apart[rows, nearest]
        partner = places[nearest]
        same = np.abs(partner[:, 0, None] - places[:, 0]) < _SAME
        same &= np.abs(partner[:, 1, None] - places[:, 1]) < _SAME
        apart[same] = _FAR
        good = (best < _RATIO**2 * apart.min(axis=1)) & (best < _FAR)
        return Matches(frame.points[nearest[good]], tile.points[good])
