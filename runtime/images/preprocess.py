"""The one preprocessing function, for training, calibration, evaluation and run time alike."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from geodtr.runtime.errors import ImageError
from geodtr.runtime.files.documents import decode_json
from geodtr.runtime.images.decode import PREPARED_KEY, Decoded, decode, pixels_in_place
from geodtr.runtime.images.polar import polar_transform
from geodtr.runtime.images.resize import resize_area, resize_cubic, resize_linear_exact
from geodtr.runtime.spec import Geometry, Images, Preprocessing

_RESIZES = {"area": resize_area, "opencv-linear-exact": resize_linear_exact, "opencv-cubic": resize_cubic}
"""Of pixels; the other kernel is Pillow's and takes its image."""


def preprocess(image: Image.Image, how: Preprocessing) -> Images:
    """RGB of any size -> uint8 RGB of `how.shape`, not yet normalised.

    Bilinear resizing is Pillow's filter, which averages when it shrinks: a resize without antialiasing is another input
    and costs recall. Raises ImageError when a tile for the polar transform is not square.
    """
    if how.overview:
        both = np.zeros(how.shape, np.uint8)
        for part in parts(both, how):
            height, width, _ = part.shape
            part[:] = preprocess(image, msgspec.structs.replace(how, height=height, width=width, overview=0))
        return both
    if how.polar:
        height, width = how.polar_scale * how.height, how.polar_scale * how.width
        polar = polar_transform(pixels_in_place(image), height, width, stretch=how.stretch)
        if how.polar_scale == 1:
            return polar
        plain = msgspec.structs.replace(how, polar=False, stretch=False, polar_scale=1)
        return preprocess(Image.fromarray(polar), plain)
    first, last = (round(share * image.height) for share in how.rows)
    top, bottom = min(first, image.height - 1), min(max(last, first + 1), image.height)
    resize = _RESIZES.get(how.resize)
    if resize is not None and (image.width, bottom - top) != (how.width, how.height):
        return resize(pixels_in_place(image)[top:bottom, :, :3], how.height, how.width)
    if bottom - top < image.height:
        # Pillow's crop refuses what it takes for a bomb, which a mosaic in memory may be as large as.
        image = Image.fromarray(np.asarray(image)[top:bottom])
    return np.asarray(image.resize((how.width, how.height), Image.Resampling.BILINEAR))


def parts(pixels: Any, how: Preprocessing) -> tuple[Any, ...]:
    """Views of the image, and of its overview if it has one, in an array or tensor [..., H, W, 3] of inputs."""
    image = pixels[..., : how.width, :]
    return (image, pixels[..., : how.overview, how.width :, :]) if how.overview else (image,)


def load_image(path: Path, how: Preprocessing) -> Images:
    """Decode and preprocess one file; an image that was prepared in exactly this way is returned unchanged.

    Raises ImageError, naming the file, also when the image was prepared in another way: no image is transformed twice.
    """
    image = decode(path)
    try:
        return as_input(image, how)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def as_input(image: Decoded, how: Preprocessing) -> Images:
    """The same for an image that is decoded already; its errors cannot name the file."""
    if image.prepared is None:
        return preprocess(image.image, how)
    _check_prepared(image.prepared, image.image, how.geometry)
    return image.pixels


def describe(geometry: Geometry) -> str:
    """The text that a prepared image carries."""
    return msgspec.json.encode(geometry).decode()


def _check_prepared(note: str, image: Image.Image, wanted: Geometry) -> None:
    try:
        prepared = decode_json(note, Geometry)
    except msgspec.DecodeError as error:
        raise ImageError(f"its text {PREPARED_KEY} is not valid ({error}). Prepare it again.") from None
    if prepared != wanted:
        raise ImageError(
            f"it was prepared as {describe(prepared)}, and {describe(wanted)} is needed. Use the original images, or "
            "prepare them for this model: geodtr-export data prepare SPEC --preset NAME --out FOLDER"
        )
    if (image.height, image.width, 3) != prepared.shape:
        raise ImageError(f"its text {PREPARED_KEY} is {note}, but it has {image.width}x{image.height} pixels.")
