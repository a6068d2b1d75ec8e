"""An image that cannot be decoded correctly is refused by name."""

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome, Trained
from PIL import Image

from geodtr.runtime.images.decode import read_image


@pytest.mark.parametrize("command", ["evaluate", "parity"])
@pytest.mark.parametrize("damage", ["missing", "cannot be decoded"])
def test_a_pair_whose_image_is_bad_is_left_out_and_reported(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome], command: str, damage: str
) -> None:
    image = pairs / "ground" / "000007.png"
    if damage == "missing":
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[:400])
    # Parity writes its verdict into the bundle, which other tests share: compare a copy.
    bundle = shutil.copytree(trained.bundles["fp32"].path, pairs.parent / "bundle")
    models = [bundle] if command == "evaluate" else [trained.onnx.path, bundle]
    result = cli(command, *models, "--data", f"pairs:{pairs}", "--json")
    assert result.code == 0
    assert "000007.png" in result.err
    assert damage in result.err
    figures = json.loads(result.out)
    recall = figures["reference"]["recall"] if command == "parity" else figures["results"][0]["recall"]["own tile"]
    assert recall["queries"] == 19


def test_a_truncated_image_is_named(trained: Trained, pairs: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    image = pairs / "aerial" / "000007.png"
    image.write_bytes(image.read_bytes()[:400])
    bundle, data = trained.bundles["fp32"].path, f"pairs:{pairs}"
    for command in (
        ("gallery", "build", bundle, data, "--out", tmp_path / "g"),
        ("embed", bundle, pairs / "aerial", "--branch", "aerial", "--out", tmp_path / "d.npy"),
        ("build-engine", trained.onnx.path, "--precision", "int8", "--calibration", data, "--out", tmp_path / "b"),
    ):
        assert "000007.png cannot be decoded" in refused(*command)


def test_a_file_that_is_no_image_is_named(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not an image")
    bundle = trained.bundles["fp32"].path
    assert "notes.jpg" in refused("embed", bundle, text, "--branch", "ground", "--out", tmp_path / "d.npy")


def test_a_16_bit_image_is_refused(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((32, 128), 40_000, np.uint16)).save(deep)
    bundle = trained.bundles["fp32"].path
    assert "I;16" in refused("embed", bundle, deep, "--branch", "ground", "--out", tmp_path / "d.npy")


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_16_bits_per_channel_are_not_silently_reduced_to_8(
    trained: Trained, tmp_path: Path, refused: Callable[..., str], name: str
) -> None:
    (tmp_path / name).write_bytes(_rgb16_png() if name.endswith("png") else _rgb16_tiff())
    bundle = trained.bundles["fp32"].path
    assert "16 bits" in refused("embed", bundle, tmp_path / name, "--branch", "ground", "--out", tmp_path / "d.npy")


@pytest.mark.parametrize("width", [540, 671, 720])
def test_8_bits_are_not_read_as_16_for_any_numbers_in_the_header(tmp_path: Path, width: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (5, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "bytes of a row.bmp")
    np.testing.assert_array_equal(read_image(tmp_path / "bytes of a row.bmp"), pixels)
    for height in range(1, 60):  # the number of bytes before the last strip sometimes contains a 16
        image = Image.effect_noise((width, height), 80).convert("RGB")
        image.save(tmp_path / "strips.tif", compression="tiff_lzw")
        np.testing.assert_array_equal(read_image(tmp_path / "strips.tif"), np.asarray(image))


def test_a_tile_that_is_not_square_is_named(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    Image.new("RGB", (64, 60)).save(tmp_path / "oblong.png")
    bundle = trained.bundles["fp32"].path
    message = refused("embed", bundle, tmp_path / "oblong.png", "--branch", "aerial", "--out", tmp_path / "d.npy")
    assert "oblong.png" in message
    assert "64x60" in message


def test_an_empty_folder_is_named(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    bundle = trained.bundles["fp32"].path
    assert "holds no images" in refused("gallery", "build", bundle, tmp_path / "empty", "--out", tmp_path / "g")
    assert "pairs.csv" in refused("evaluate", bundle, "--data", f"pairs:{tmp_path / 'empty'}")
    assert "manifest.json" in refused("inspect", tmp_path / "empty")
    assert "gallery.json" in refused("gallery", "info", tmp_path / "empty")


def _rgb16_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(64 * 3 * 2) for _ in range(32))
    header = struct.pack(">IIBBBBB", 64, 32, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _rgb16_tiff() -> bytes:
    """An uncompressed little-endian TIFF of 64 x 32 pixels, three channels of 16 bits."""
    pixels = bytes(64 * 32 * 6)
    tags = [(256, 64), (257, 32), (258, 0), (259, 1), (262, 2), (273, 0), (277, 3), (278, 32), (279, len(pixels))]
    bits_at = 8 + 2 + 12 * len(tags) + 4
    values = {258: bits_at, 273: bits_at + 6}
    entries = b"".join(
        struct.pack(
            "<HHII", tag, 3 if tag in (258, 259, 262, 277) else 4, 3 if tag == 258 else 1, values.get(tag, value)
        )
        for tag, value in tags
    )
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return start + struct.pack("<HHH", 16, 16, 16) + pixels
