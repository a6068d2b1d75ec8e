"""Camera positions from EXIF."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from geodtr.runtime.errors import DataError
from geodtr.runtime.sources.tile import Position, check_position

_GPS = ExifTags.GPS
_SIGNS = {"N": 1, "S": -1, "E": 1, "W": -1}


def find_in_exif(image: Path) -> Position | None:
    """The position in the image's GPS tags; None if there are none, or the file cannot be read as an image.

    GPSImgDirection is ignored: it is the camera's viewing direction, and a tile is seen from above.
    Raises DataError when half a position is missing, a value violates EXIF 2.32 (section 4.6.6), or both are 0.
    """
    try:
        with Image.open(image) as opened:
            return position_of(opened, str(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def position_of(opened: Image.Image, image: str) -> Position | None:
    """The same of an image that is open, which messages call `image`."""
    tags = opened.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    needed = (_GPS.GPSLatitude, _GPS.GPSLatitudeRef, _GPS.GPSLongitude, _GPS.GPSLongitudeRef)
    missing = [tag.name for tag in needed if tag not in tags]
    if len(missing) == len(needed):
        return None
    if missing:
        raise DataError(
            f"{image}: its EXIF lacks {', '.join(missing)}, and half a position is none. Correct it, or give positions "
            "in a CSV."
        )
    lat = _degrees(tags, _GPS.GPSLatitude, _GPS.GPSLatitudeRef, "NS", image)
    lon = _degrees(tags, _GPS.GPSLongitude, _GPS.GPSLongitudeRef, "EW", image)
    if lat == lon == 0:
        raise DataError(
            f"{image}: its EXIF has GPSLatitude 0 and GPSLongitude 0, as cameras write that do not know, or "
            "hide, where they are. Give positions in a CSV."
        )
    return check_position(lat, lon, image)


def _degrees(tags: Mapping[int, Any], value: _GPS, reference: _GPS, allowed: str, image: str) -> float:
    """Degrees, minutes and seconds to degrees, south and west negative."""
    side = str(tags[reference]).strip("\0 ").upper()
    try:
        degrees, minutes, seconds = (float(part) for part in tags[value])
        # A rational 0/0 is no number.
        known = side in tuple(allowed) and all(map(isfinite, (degrees, minutes, seconds)))
        sign = _SIGNS[side] if known else None
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        sign = None
    if sign is None:
        raise DataError(
            f"{image}: its EXIF has {value.name} {_as_text(tags[value])}, {reference.name} {side[:20]!r}; needed are "
            f"degrees, minutes and seconds, and {' or '.join(allowed)}. Correct it, or give positions in a CSV."
        )
    return sign * (degrees + minutes / 60 + seconds / 3600)


def _as_text(value: object) -> str:
    """A tag's value as it is written there: rationals as fractions."""
    parts = value if isinstance(value, tuple) else (value,)
    text = ", ".join(
        f"{part.numerator}/{part.denominator}" if isinstance(part, IFDRational) else repr(part) for part in parts
    )
    return text[:80]
