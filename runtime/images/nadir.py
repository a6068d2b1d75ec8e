"""A frame that looks straight down as an aerial image: scaled to a resolution, rotated until north is up, cropped.

A heading is where the frame's upper edge points, degrees clockwise from north. The middle of the frame stays there.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geodtr.runtime.spec import Images

_TO_HALF, _TO_WHOLE = (np.array([(1, 0, by), (0, 1, by), (0, 0, 1)]) for by in (0.5, -0.5))


def north_up(
    frame: Image.Image, metres_per_pixel: float, headings: Sequence[float], side: int, resolution: float
) -> Images:
    """`side` x `side` pixels of `resolution` metres each around the middle of an RGB frame whose pixels are
    `metres_per_pixel` on the ground, rotated for each of N headings: uint8 [N, side, side, 3].

    The frame is shrunk by averaging before it is rotated by bilinear interpolation, so that it is as sharp as a tile.
    What lies beyond it has its mean colour.
    """
    scale = min(1.0, metres_per_pixel / resolution)
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    small = frame if size == frame.size else frame.resize(size, Image.Resampling.BOX, reducing_gap=3.0)
    mean = tuple(round(float(level)) for level in np.asarray(small).reshape(-1, 3).mean(axis=0))
    crops = []
    for heading in headings:
        to_frame = from_crop(frame.size, metres_per_pixel, heading, side, resolution)
        (a, b, c), (d, e, f) = to_frame[0] * (size[0] / frame.width), to_frame[1] * (size[1] / frame.height)
        crop = small.transform(
            (side, side), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=mean
        )
        crops.append(np.asarray(crop))
    return np.stack(crops)


def from_crop(
    size: tuple[int, int], metres_per_pixel: float, heading: float, side: int, resolution: float
) -> NDArray[np.float64]:
    """The affine map [2, 3] from pixels of such a crop to pixels of its frame of `size` (width, height)."""
    angle, ratio = math.radians(heading), resolution / metres_per_pixel
    rotation = ratio * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = np.array(size) / 2 - rotation @ np.full(2, side / 2)
    return np.column_stack([rotation, middle])


def whole_pixels(to_source: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map [2, 3] or [3, 3] between pixels whose middles are at a half, as OpenCV has it: at whole numbers."""
    square = to_source if len(to_source) == 3 else np.vstack([to_source, (0.0, 0.0, 1.0)])
    return np.asarray(_TO_WHOLE @ square @ _TO_HALF, np.float64)[: len(to_source)]


def ground_width(altitude: float, view: float) -> float:
    """The width of the ground, metres, that a camera sees straight below it from an altitude in metres, whose image's
    width is an angle of `view` degrees. It is proportional to the altitude.
    """
    return 2 * altitude * math.tan(math.radians(view) / 2)


def share_covered(size: tuple[int, int], metres_per_pixel: float, metres: float) -> float:
    """The share of a square of `metres` that a frame of `size` shows, whichever way it is rotated: at least this."""
    inside = min(size) * metres_per_pixel / metres
    return min(1.0, inside) ** 2
