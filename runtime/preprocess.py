"""The one preprocessing function, for training, calibration, evaluation and run time alike."""

from pathlib import Path

import numpy as np
from PIL import Image

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images import read_image
from geodtr.runtime.polar import polar_transform
from geodtr.runtime.spec import Images, Preprocessing


def preprocess(image: Images, how: Preprocessing) -> Images:
    """uint8 RGB [h, w, 3] of any size -> uint8 RGB [how.height, how.width, 3], not yet normalised.

    Resizing is Pillow's bilinear filter, which averages when it shrinks: a resize without antialiasing is another
    input and costs recall. Raises ImageError when a tile for the polar transform is not square.
    """
    if how.polar:
        return polar_transform(image, how.height, how.width)
    if image.shape[:2] == (how.height, how.width):
        return image
    return np.asarray(Image.fromarray(image).resize((how.width, how.height), Image.Resampling.BILINEAR))


def load_image(path: Path, how: Preprocessing) -> Images:
    """Decode and preprocess one file. Raises ImageError, naming the file."""
    image = read_image(path)
    try:
        return preprocess(image, how)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
