"""Directions of an image's gradients: what a frame and a map have in common in other light and another season.

The angle is doubled, so that an edge counts the same whether its left or its right side is darker; the strength is
saturated, so that a faint edge counts nearly as much as a strong one. Works with OpenCV, imported inside the calls.
Source: gradient orientation is matched across sensors and seasons in the same way by Fitch et al., Orientation
correlation, BMVC 2002.
"""

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.spec import Images

Field = NDArray[np.float32]
"""float32 [H, W, 2]: cosine and sine of the doubled angle, times a strength from 0 to 1."""


def gradient_field(image: Images) -> Field:
    """The field of an image, uint8 RGB [H, W, 3]."""
    import cv2

    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    right, down = (cv2.Sobel(grey, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
    squared = right * right + down * down
    strength = np.sqrt(squared)
    usual = np.float32(np.median(strength)) + np.float32(1.0)
    weight = strength / ((strength + usual) * np.maximum(squared, np.float32(1e-6)))
    return np.stack([(right * right - down * down) * weight, 2 * right * down * weight], axis=-1)
