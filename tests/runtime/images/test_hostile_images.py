"""Images of every kind become correct 8-bit RGB or are refused by name, and hostile ones use no memory."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.decode import MAX_PIXELS, MAX_SIDE, image_size, read_image
from geodtr.runtime.spec import Images

FORMATS = ("jpeg", "png", "webp", "bmp", "tiff")
RGB = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """The test picture, with an EXIF orientation if the format has one, so that a test can damage it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(file, kind, exif=exif, **options)
    return file.getvalue()


ENCODED = {
    **{kind: encoded(kind) for kind in FORMATS},
    "progressive jpeg": encoded("jpeg", progressive=True),
    "lzw tiff": encoded("tiff", compression="tiff_lzw"),
    "jpeg tiff": encoded("tiff", compression="jpeg"),
    "palette png": encoded("png", "P"),
    "lossless webp": encoded("webp", lossless=True),
    "cmyk jpeg": encoded("jpeg", "CMYK"),
}
PNG_END = 20
"""Bytes after a PNG's last pixel: the checksums of its pixels and the chunk IEND."""
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(path: Path) -> None:
    """Require an image of the size in the file's header, or an error that names the file."""
    try:
        image = read_image(path)
    except ImageError as error:
        assert path.name in str(error)
        return
    assert image.dtype == np.uint8
    assert image.shape == (*image_size(path), 3)


@pytest.mark.parametrize("kind", ENCODED)
@given(kept=st.floats(0, 1, exclude_max=True))
@FUZZ
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / "cut.img"
    needed = len(ENCODED[kind]) - (PNG_END if "png" in kind else 0)
    path.write_bytes(ENCODED[kind][: int(kept * needed)])
    with pytest.raises(ImageError, match=r"cut\.img"):
        read_image(path)


@pytest.mark.parametrize("kind", ["png", "palette png"])
def test_a_png_without_its_end_marker_is_complete(tmp_path: Path, kind: str) -> None:
    for name, content in (("whole.png", ENCODED[kind]), ("cut.png", ENCODED[kind][:-PNG_END])):
        (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "cut.png"), read_image(tmp_path / "whole.png"))


@pytest.mark.parametrize("kind", ENCODED)
@given(data=st.data())
@FUZZ
def test_a_file_with_foreign_bytes_is_read_or_refused_by_name(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray(ENCODED[kind])
    # Half of the damage is in the header, which holds sizes and offsets.
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.sampled_from([64, len(content)]))
        at = data.draw(st.integers(0, min(end, len(content)) - 1))
        junk = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(junk)] = junk
    path = tmp_path / "damaged.img"
    path.write_bytes(content)
    read_or_refuse(path)


@given(
    junk=st.binary(max_size=200), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM"])
)
@FUZZ
def test_junk_is_refused_by_name(tmp_path: Path, junk: bytes, start: bytes) -> None:
    path = tmp_path / "junk.img"
    path.write_bytes(start + junk)
    with pytest.raises(ImageError, match=r"junk\.img"):
        read_image(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_without_its_last_quarter_is_never_an_image(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cut.img"
    path.write_bytes(ENCODED[kind][: 3 * len(ENCODED[kind]) // 4])
    with pytest.raises(ImageError, match=r"cut\.img"):
        read_image(path)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGBA", RGB),
        ("L", np.repeat(np.asarray(Image.fromarray(RGB).convert("L"))[..., None], 3, axis=2)),
        ("LA", np.repeat(np.asarray(Image.fromarray(RGB).convert("L"))[..., None], 3, axis=2)),
        ("P", np.asarray(Image.fromarray(RGB).convert("P").convert("RGB"))),
        ("1", np.asarray(Image.fromarray(RGB).convert("1").convert("RGB"))),
    ],
)
def test_other_modes_become_rgb_and_alpha_is_dropped(tmp_path: Path, mode: str, expected: Images) -> None:
    image = Image.fromarray(RGB).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(RGB[..., 0]))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").astype(int), flat, atol=6)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda image: image),
        (2, np.fliplr),
        (3, lambda image: np.rot90(image, 2)),
        (4, np.flipud),
        (5, lambda image: np.transpose(image, (1, 0, 2))),
        (6, lambda image: np.rot90(image, -1)),
        (7, lambda image: np.rot90(np.transpose(image, (1, 0, 2)), 2)),
        (8, np.rot90),
    ],
)
def test_all_exif_orientations_are_applied(
    tmp_path: Path,
    kind: str,
    orientation: int,
    upright: Callable[[Images], Images],
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    smooth = np.asarray(Image.fromarray(RGB[:3, :4]).resize((32, 24), Image.Resampling.BICUBIC))
    options: dict[str, object] = {"quality": 95} if kind == "jpeg" else {"lossless": True} if kind == "webp" else {}
    Image.fromarray(smooth).save(tmp_path / "a.img", kind, exif=exif, **options)
    difference = read_image(tmp_path / "a.img").astype(int) - upright(smooth)
    assert np.abs(difference).mean() < 8
    assert image_size(tmp_path / "a.img") == upright(smooth).shape[:2]


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "png"), ("I;16", "tiff"), ("F", "tiff"), ("I", "tiff")])
def test_deep_pixels_are_refused_naming_their_format(tmp_path: Path, mode: str, kind: str) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "deep.img", kind)
    with pytest.raises(ImageError, match=r"deep\.img has pixel format (I|F).*Convert it to 8-bit RGB"):
        read_image(tmp_path / "deep.img")


def test_the_first_picture_of_a_file_with_two_is_used(tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), 90, np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.jpg", "mpo", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").astype(int), flat, atol=3)


@pytest.mark.parametrize("kind", ["gif", "ppm", "ico", "pcx", "eps"])
def test_other_formats_are_not_tried(tmp_path: Path, kind: str) -> None:
    Image.fromarray(RGB).save(tmp_path / "other.png", kind)
    with pytest.raises(ImageError, match=r"other\.png is not an image.*allowed are JPEG, PNG, WebP, BMP and TIFF"):
        read_image(tmp_path / "other.png")


def test_a_pipe_or_device_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "folder.jpg"):
        with pytest.raises(ImageError, match=rf"{name} is not a file"):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "gone.jpg")


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of one colour, generated row by row: gigabytes of pixels in a file of some hundred kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, row = zlib.compressobj(1), bytes(1 + 3 * width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def claiming(kind: str, side: int) -> bytes:
    """A small file whose header states side x side pixels."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    content = bytearray(file.getvalue())
    if kind == "webp":
        content[26:30] = struct.pack("<HH", 8_000, 8_000)  # within the limit of other formats
    elif kind == "bmp":
        content[18:26] = struct.pack("<ii", side, side)
    else:
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def peak_of_reading(path: Path) -> tuple[str, int]:
    """Read an image in a new process; return its output and its peak memory in bytes."""
    script = (
        "import sys; from pathlib import Path\n"
        "from geodtr.runtime.images.decode import read_image; from geodtr.runtime.errors import ImageError\n"
        "import PIL.JpegImagePlugin, PIL.PngImagePlugin, PIL.WebPImagePlugin, PIL.BmpImagePlugin\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) * 1024\n"
        "before = peak()\n"
        "try: read_image(Path(sys.argv[1]))\n"
        "except ImageError as error: print(error)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    *lines, peak = done.stdout.splitlines()
    return "\n".join(lines), int(peak)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp"])
def test_a_decompression_bomb_is_refused_by_its_header_before_it_uses_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(png_bomb(30_000, 3_000) if kind == "png" else claiming(kind, 30_000))
    message, peak = peak_of_reading(path)
    most = MAX_PIXELS // 4 if kind == "webp" else MAX_PIXELS
    assert f"{path} has more than {most:,} pixels. Cut it into tiles first." in message
    assert peak < 20e6


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_an_image_of_few_long_lines_is_refused_before_it_uses_memory(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    path.write_bytes(png_bomb(MAX_SIDE + 1, 1))
    message, peak = peak_of_reading(path)
    assert f"{path} has a side of more than {MAX_SIDE:,} pixels" in message
    assert peak < 20e6
