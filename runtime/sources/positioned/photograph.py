"""What a photograph states of itself: where it was taken, where it looked, how high, and the ground that it covers.

Sources: EXIF 2.32; DJI's XMP; GPano.
"""

import sys
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from geodtr.runtime.errors import DataError
from geodtr.runtime.files import open_to_read
from geodtr.runtime.geodesy import distance
from geodtr.runtime.images.decode import FORMATS, explained
from geodtr.runtime.images.recorded import Recorded, Stated, gimbal, ground_seen, width_seen
from geodtr.runtime.images.xmp import DJI, Panorama, Properties, number_of, panorama_of, read_properties
from geodtr.runtime.sources.positioned.exif import find_in_exif

_AGREE = 100.0
"""Metres by which XMP and EXIF may differ: EXIF's seconds are coarse, and some cameras keep the last fix."""

_LOOKS_DOWN = 45.0
"""Degrees of tilt below which the heading is the upper edge's, not the line of sight's."""
_ON_ITS_SIDE = (5, 6, 7, 8)
_TURNS: dict[object, float] = {1: 0.0, 3: 180.0, 6: -90.0, 8: 90.0}
"""Degrees from the heading of the sensor's upper edge to the upright image's, by EXIF's orientation: 6 is shown turned
clockwise, so that the sensor's left edge is the upper one. Others are mirrored.
"""


def read_photograph(path: Path) -> Recorded:
    """Read the tags of `path`; no pixels are decoded.

    Field of view and heading belong to the image as it is decoded, turned upright by its EXIF. Raises ImageError where
    it is no image or its XMP states what cannot be, DataError where its EXIF does, or where the two give places more
    than 100 m apart.
    """
    with explained(str(path)), open_to_read(path, sys.maxsize) as file, Image.open(file, formats=FORMATS) as image:
        size, packet = image.size, image.info.get("xmp")
        exif = image.getexif()
        turned = exif.get(ExifTags.Base.Orientation, 1)
        camera, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    properties, of = read_properties(packet if isinstance(packet, bytes) else None), str(path)
    lat, lon = _position(path, properties, of)
    tilt, yaw = _gimbal(properties, of)
    if tilt is not None and yaw is not None and tilt.value < _LOOKS_DOWN:
        yaw = _of_upper_edge(yaw, turned)
    height = _stated(properties, "RelativeAltitude", of)
    panorama = panorama_of(properties, of)
    view = (
        _field_of_view(camera, size[::-1] if turned in _ON_ITS_SIDE else size)
        if panorama is None
        else Stated(panorama.field_of_view, "XMP CroppedAreaImageWidthPixels")
    )
    return Recorded(
        file=of,
        lat=lat,
        lon=lon,
        heading=yaw or _panorama_heading(panorama) or _image_direction(gps),
        tilt=tilt,
        height=height,
        field_of_view=view,
        ground_metres=ground_seen(height, view, tilt),
        rtk=_rtk(properties, of),
    )


def _position(path: Path, properties: Properties, of: str) -> tuple[Stated | None, Stated | None]:
    """Of EXIF, else of DJI's XMP, which is finer: it counts where both are there and agree."""
    at = find_in_exif(path)
    lat = _stated(properties, "GpsLatitude", of)
    lon = _stated(properties, "GpsLongitude", of) or _stated(properties, "GpsLongtitude", of)  # DJI's own spelling
    if lat is None or lon is None or (lat.value == 0 and lon.value == 0):
        if at is None:
            return None, None
        return Stated(at.lat, "EXIF GPSLatitude"), Stated(at.lon, "EXIF GPSLongitude")
    if not (abs(lat.value) <= 90 and abs(lon.value) <= 180):
        raise DataError(f"{of}: its XMP has GpsLatitude {lat.value:g} and GpsLongitude {lon.value:g}; no such place.")
    if at is not None:
        apart = float(distance(at.lat, at.lon, lat.value, lon.value))
        if apart > _AGREE:
            raise DataError(
                f"{of}: its EXIF gives {at.lat:.6f}, {at.lon:.6f} and its XMP {lat.value:.6f}, {lon.value:.6f}, "
                f"{apart:.0f} m apart. Remove the wrong one."
            )
    return lat, lon


def _gimbal(properties: Properties, of: str) -> tuple[Stated | None, Stated | None]:
    """Tilt and heading; without a pitch, whether the camera looks down or ahead is unknown, and so is the heading."""
    pitch, yaw, roll = (_stated(properties, f"Gimbal{name}Degree", of) for name in ("Pitch", "Yaw", "Roll"))
    if pitch is None:
        return None, None
    angles = (np.full(1, nan if each is None else each.value) for each in (pitch, yaw, roll))
    stated = zip(gimbal(*angles), (pitch, yaw), strict=True)
    tilt, heading = (
        None if by is None or np.isnan(value[0]) else Stated(float(value[0]), by.origin) for value, by in stated
    )
    return tilt, heading


def _of_upper_edge(yaw: Stated, turned: object) -> Stated | None:
    """The heading of the upper edge of the image as it is decoded, turned upright; None where it is mirrored."""
    by = _TURNS.get(turned)
    return None if by is None else Stated((yaw.value + by) % 360, yaw.origin if by == 0 else f"{yaw.origin}, turned")


def _stated(properties: Properties, name: str, of: str) -> Stated | None:
    value = number_of(properties, DJI, name, of)
    return None if value is None else Stated(value, f"XMP {name}")


def _rtk(properties: Properties, of: str) -> bool | None:
    """DJI's flag is 50 for a fixed solution, below for others."""
    flag = number_of(properties, DJI, "RtkFlag", of)
    return None if flag is None else flag == 50


def _panorama_heading(panorama: Panorama | None) -> Stated | None:
    heading = None if panorama is None else panorama.heading
    return None if heading is None else Stated(heading, "XMP PoseHeadingDegrees")


def _image_direction(gps: Any) -> Stated | None:
    """The camera's direction from true north; a magnetic one is off by an unknown declination."""
    reference = str(gps.get(ExifTags.GPS.GPSImgDirectionRef, "")).strip("\0 ").upper()
    value = _number(gps.get(ExifTags.GPS.GPSImgDirection))
    if reference != "T" or value is None or not 0 <= value <= 360:
        return None
    return Stated(value % 360, "EXIF GPSImgDirection")


def _field_of_view(camera: Any, size: tuple[int, int]) -> Stated | None:
    """By the equivalent focal length, which relates to the diagonal; 0 is unknown (EXIF 2.32, 4.6.5)."""
    focal = _number(camera.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if focal is None or focal <= 0 or 0 in size:
        return None
    return Stated(width_seen(focal, size), "EXIF FocalLengthIn35mmFilm")


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type] # a tag may hold anything
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if isfinite(number) else None
