"""Decoding: from an image file to uint8 RGB pixels, always by Pillow, because another decoder is another input."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import nanoarrow
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from geodtr.runtime.errors import ImageError
from geodtr.runtime.files import readable
from geodtr.runtime.spec import Images

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Pillow's other readers are never tried: there are dozens, and one of them starts a program."""

MAX_PIXELS = 89_478_485
"""Checked before decoding; decoded, an image of this size takes 350 MB. A quarter for WebP, whose decoder keeps three
canvases beside the pixels. Pillow itself warns of a decompression bomb above this size.
"""

MAX_SIDE = 65_535
"""JPEG's own limit. Decoders keep whole lines: a PNG of one line of MAX_PIXELS took 1.4 GB."""

PREPARED_KEY = "geodtr-preprocessing"
"""Key of the PNG text that records how a prepared image was preprocessed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image in memory, RGB and upright, with its file's note on preprocessing, None for an original image, and its
    XMP packet, None where it has none.

    It stays a Pillow image, because converting it to an array copies it. A WebP image also holds the file's bytes and
    the decoder's canvases, three times the pixels.
    """

    image: Image.Image
    prepared: str | None
    xmp: bytes | None = None

    @classmethod
    def of(cls, pixels: Images) -> "Decoded":
        """A plain image of pixels that came from elsewhere, uint8 RGB [H, W, 3]."""
        return cls(Image.fromarray(pixels), None)

    @property
    def pixels(self) -> Images:
        """A copy, uint8 [H, W, 3]."""
        return np.asarray(self.image)


def read_image(path: Path) -> Images:
    """The pixels of `decode`."""
    return decode(path).pixels


def decode(path: Path) -> Decoded:
    """Decode `path` to 8-bit RGB, turned upright by its EXIF orientation; alpha is dropped.

    Of a file that holds several pictures the first is meant. Raises ImageError when the file is missing, truncated, not
    an image, has more than MAX_PIXELS, or a pixel format without a faithful 8-bit form (16-bit and floating-point
    images).
    """
    with _opened(path) as image:
        return _upright(image, str(path))


def decode_bytes(content: bytes, name: str, most: int = MAX_PIXELS) -> Decoded:
    """The same of an image file's bytes; `name` is what a message calls them, `most` the pixels that are allowed."""
    with explained(name), Image.open(BytesIO(content), formats=FORMATS) as image:
        _check_pixels(image, name, most)
        return _upright(image, name)


def _upright(image: Image.Image, name: str) -> Decoded:
    if image.mode not in _MODES or _deep(image):
        depth = " with 16 bits a channel" if _deep(image) else ""
        raise ImageError(
            f"{name} has pixel format {image.mode}{depth}; allowed are 8-bit images "
            f"({', '.join(sorted(_MODES))}). Convert it to 8-bit RGB first."
        )
    image.load()
    note, xmp = image.info.get(PREPARED_KEY), image.info.get("xmp")
    # Neither copies an image that needs nothing: the copies took longer than decoding a panorama.
    ImageOps.exif_transpose(image, in_place=True)
    upright = image if image.mode == "RGB" else image.convert("RGB")
    return Decoded(upright, note if isinstance(note, str) else None, xmp if isinstance(xmp, bytes) else None)


def pixels_in_place(image: Image.Image) -> Images:
    """The pixels of an RGB image without a copy, uint8 [H, W, 4]: red, green, blue, and an unused byte.

    The array is a view of Pillow's memory and keeps it alive; do not write to it. If Pillow stores the image in several
    blocks, as it may above 16 MB, the result is a copy, [H, W, 3]. Source: Pillow's Arrow support.
    """
    if Image.core.get_alignment() > 1:  # type: ignore[attr-defined] # padded rows, which Pillow before 13 does not report
        return np.asarray(image)
    try:
        pixels = nanoarrow.c_array(image).child(0).view().buffer(1)
    except ValueError:
        return np.asarray(image)
    return np.asarray(pixels).reshape(image.height, image.width, 4)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, upright, by the file's head alone. Raises ImageError as `decode` does."""
    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        # Some versions of Pillow give a TIFF's size turned already; its tags say how it is stored.
        tags = getattr(image, "tag_v2", None)
        width, height = image.size if tags is None else (int(tags[256]), int(tags[257]))
        return (width, height) if turned else (height, width)


def encoded(image: Image.Image, kind: Literal["JPEG", "WEBP"], side: int | None = None) -> bytes:
    """An image as a file for a page or a recording, made smaller where a side has more than `side` pixels."""
    if side is not None:
        image = image.copy()
        image.thumbnail((side, side))
    stream = BytesIO()
    image.save(stream, kind, quality=80, method=2)  # a fast one, of WebP
    return stream.getvalue()


@readable(ImageError)
def list_images(folder: Path) -> list[Path]:
    """All image files directly in `folder`, by name. Raises ImageError when there are none, or it cannot be read."""
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder. Check the path.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise ImageError(f"{folder} holds no images; a file counts when it ends in {', '.join(sorted(SUFFIXES))}.")
    return paths


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file, opened by Pillow; what Pillow refuses, then or within, becomes an ImageError."""
    with explained(str(path)):
        # What is no file, a pipe for one, could keep its reader waiting for ever.
        if path.exists() and not path.is_file():
            raise ImageError(f"{path} is not a file. Name an image.")
        with Image.open(path, formats=FORMATS) as image:
            _check_pixels(image, str(path))
            yield image


def _check_pixels(image: Image.Image, name: str, most: int = MAX_PIXELS) -> None:
    most = min(most, MAX_PIXELS // 4 if image.format == "WEBP" else MAX_PIXELS)
    if image.width * image.height > most:
        raise ImageError(f"{name} has more than {most:,} pixels. Cut it into tiles first.")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{name} has a side of more than {MAX_SIDE:,} pixels. Cut it into tiles first.")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Make an ImageError of what Pillow and the disk say of the file `name`."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist. Check the path, or the list that names it.") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is not an image that can be read; allowed are JPEG, PNG, WebP, BMP and TIFF, of 8 bits."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name} has more than {MAX_PIXELS:,} pixels. Cut it into tiles first.") from None
    except Exception as error:  # on a damaged file, Pillow's readers raise errors of many types
        if isinstance(error, OSError) and error.strerror is not None:
            raise ImageError(f"{name} cannot be read ({error.strerror}).") from None
        raise ImageError(f"{name} cannot be decoded ({error}): truncated or corrupt. Replace or remove it.") from None


def _deep(image: Image.Image) -> bool:
    """Whether the file holds 16 bits a channel, of which Pillow would silently keep the upper eight."""
    return any("16" in _raw_mode(tile.args) for tile in getattr(image, "tile", ()))


def _raw_mode(arguments: object) -> str:
    """What a decoder's arguments say of the pixels in the file; the others are strides and offsets."""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""
