"""The one preprocessing function, for training, calibration, evaluation and run time alike."""

from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from geodtr.runtime.area import resize_area
from geodtr.runtime.errors import ImageError
from geodtr.runtime.images import PREPARED_KEY, Decoded, decode
from geodtr.runtime.polar import polar_transform
from geodtr.runtime.spec import Geometry, Images, Preprocessing


def preprocess(image: Images, how: Preprocessing) -> Images:
    """uint8 RGB [h, w, 3] of any size -> uint8 RGB [how.height, how.width, 3], not yet normalised.

    Bilinear resizing is Pillow's filter, which averages when it shrinks: a resize without antialiasing is another input
    and costs recall. Raises ImageError when a tile for the polar transform is not square.
    """
    if how.polar:
        return polar_transform(image, how.height, how.width)
    first, last = (round(share * len(image)) for share in how.rows)
    image = image[min(first, len(image) - 1) : max(last, first + 1)]
    if image.shape[:2] == (how.height, how.width):
        return image
    if how.resize == "area":
        return resize_area(image, how.height, how.width)
    return np.asarray(Image.fromarray(image).resize((how.width, how.height), Image.Resampling.BILINEAR))


def load_image(path: Path, how: Preprocessing) -> Images:
    """Decode and preprocess one file; an image that says it was prepared in just this way comes back as it is.

    Raises ImageError, naming the file, also when the image was prepared in another way: nothing is transformed twice.
    """
    image = decode(path)
    try:
        return as_input(image, how)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def as_input(image: Decoded, how: Preprocessing) -> Images:
    """The same for an image that is decoded already; its errors cannot name the file."""
    if image.prepared is None:
        return preprocess(image.pixels, how)
    _check_prepared(image.prepared, image.pixels, how.geometry)
    return image.pixels


def describe(geometry: Geometry) -> str:
    """The text that a prepared image carries."""
    return msgspec.json.encode(geometry).decode()


def _check_prepared(note: str, pixels: Images, wanted: Geometry) -> None:
    try:
        made = msgspec.json.decode(note, type=Geometry)
    except msgspec.DecodeError as error:
        raise ImageError(f"its text {PREPARED_KEY} cannot be understood ({error}). Prepare it again.") from None
    if made != wanted:
        raise ImageError(
            f"it was prepared as {describe(made)}, and {describe(wanted)} is needed. Use the original images, or "
            "prepare them for this model: geodtr-export data prepare SPEC --preset NAME --out FOLDER"
        )
    if pixels.shape[:2] != (made.height, made.width):
        raise ImageError(f"it says that it was prepared as {note} and has {pixels.shape[1]}x{pixels.shape[0]} pixels.")
