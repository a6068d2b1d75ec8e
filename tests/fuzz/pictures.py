"""Images of every format, their EXIF, and videos."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from hostile import changed_text, damaged
from hypothesis import strategies as st
from kinds import Kind, Maker, of_file
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from videos import write_video

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.decode import decode, image_size, pixels_in_place
from geodtr.runtime.images.intake import Intake
from geodtr.runtime.images.preprocess import as_input
from geodtr.runtime.images.video import read_video
from geodtr.runtime.sources.positioned.folder import FolderOptions, open_folder
from geodtr.runtime.sources.positioned.photograph import read_photograph
from geodtr.runtime.spec import Imagery, Preprocessing

_RGB = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
_HOW = Preprocessing(height=16, width=32)
_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:ProjectionType="equirectangular" '
    b'GPano:FullPanoWidthPixels="32" GPano:CroppedAreaImageWidthPixels="32" GPano:PoseHeadingDegrees="12.5" '
    b'xmlns:d="http://www.dji.com/drone-dji/1.0/" d:GpsLatitude="+48.13375" d:GpsLongitude="+11.5" d:RtkFlag="50" '
    b'd:GimbalPitchDegree="-90.0" d:GimbalYawDegree="+10.0" d:GimbalRollDegree="180" d:RelativeAltitude="+80.5"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def _encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(_gps("N", (48.0, 8.0, 1.5), "E", (11.0, 30.0, 0.0)))
    more = {"xmp": _XMP} if kind in ("jpeg", "webp") else {}
    file = BytesIO()
    Image.fromarray(_RGB).convert(mode).save(file, kind, exif=exif, **more, **options)
    return file.getvalue()


def _gps(north: object, lat: object, east: object, lon: object) -> dict[int, Any]:
    gps = ExifTags.GPS
    return {gps.GPSLatitudeRef: north, gps.GPSLatitude: lat, gps.GPSLongitudeRef: east, gps.GPSLongitude: lon}


def _images(*whole: bytes) -> Maker:
    def make(root: Path) -> Kind:
        (root / "a.png").write_bytes(whole[0])
        inputs = st.one_of([damaged(content, 128) for content in whole])
        return of_file(root / "a.png", inputs, lambda: _decode(root / "a.png"))

    return make


jpeg = _images(_encoded("jpeg"), _encoded("jpeg", progressive=True), _encoded("jpeg", "CMYK"))
png = _images(_encoded("png"), _encoded("png", "P"), _encoded("png", "LA"))
webp = _images(_encoded("webp"), _encoded("webp", lossless=True))
tiff = _images(_encoded("tiff"), _encoded("tiff", compression="tiff_lzw"), _encoded("tiff", compression="jpeg"))
bmp = _images(_encoded("bmp"))


def _decode(path: Path) -> None:
    image = decode(path).image
    pixels_in_place(image)
    assert (image.height, image.width) == image_size(path)
    as_input(decode(path), _HOW)


def exif(root: Path) -> Kind:
    """Tags of any type and value, and damaged blocks of them, with the XMP of a panorama and a drone."""
    number = st.sampled_from([0, 1, -1, 90, 180, 361, 2**31 - 1]) | st.integers(-(2**31), 2**31 - 1)
    rational = st.builds(IFDRational, number, number)
    angle = st.tuples(rational, rational, rational) | st.lists(rational, max_size=4).map(tuple) | st.text(max_size=4)
    side = st.sampled_from(["N", "S", "E", "W", "", "\0", "NS"]) | st.text(max_size=3)
    tags = _gps("N", (48.0, 8.0, 1.0), "E", (11.0, 30.0, 0.0))
    tagged = st.builds(_tagged, st.builds(_gps, side, angle, side, angle), st.integers(0, 10), st.just(_XMP))
    stated = st.builds(_tagged, st.just(tags), st.integers(0, 10), changed_text(_XMP.decode(), ("GPano", "d:", "rdf")))
    whole = _tagged(tags, 6, _XMP)
    path = root / "a.jpg"
    path.write_bytes(whole)

    def read() -> None:
        for tile in open_folder(root, FolderOptions("exif")).tiles:
            assert tile.lat is not None and abs(tile.lat) <= 90
        at = read_photograph(path).position
        assert at is None or (abs(at[0]) <= 90 and abs(at[1]) <= 180)
        _decode(path)
        Intake(mismatch="warn").take(decode(path), Imagery(projection="panorama", field_of_view=360), "a.jpg")

    return of_file(path, tagged | stated | damaged(whole, 700), read)


def _tagged(gps: dict[int, Any], orientation: int, xmp: bytes) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    file = BytesIO()
    try:
        Image.new("RGB", (32, 24)).save(file, "jpeg", exif=exif, xmp=xmp)
    except Exception:  # what Pillow cannot write, no file holds
        Image.new("RGB", (32, 24)).save(file, "jpeg")
    return file.getvalue()


def _video(suffix: str, fourcc: str) -> Maker:
    def make(root: Path) -> Kind:
        path = write_video(root / f"a{suffix}", fourcc)
        content = path.read_bytes()
        # Half of the damage is at one end or the other: indexes are at either.
        backwards = damaged(content[::-1], 2048).map(lambda damaged: damaged[::-1])
        return of_file(path, damaged(content, 1024) | backwards, lambda: _watch(path))

    return make


mp4 = _video(".mp4", "mp4v")
avi = _video(".avi", "MJPG")
matroska = _video(".mkv", "VP80")


def _watch(path: Path) -> None:
    for seen in read_video(path):
        if isinstance(seen.image, ImageError):
            raise seen.image
