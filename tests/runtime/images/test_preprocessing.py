"""Pixels match their preprocessing, for prepared and other images, and preprocessing values are checked."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from geodtr.runtime.errors import ImageError
from geodtr.runtime.images.decode import PREPARED_KEY, pixels_in_place
from geodtr.runtime.images.polar import polar_transform
from geodtr.runtime.images.preprocess import describe, load_image, preprocess
from geodtr.runtime.images.resize import resize_area, resize_cubic, resize_linear_exact
from geodtr.runtime.spec import BranchSpec, Images, PerChannel, Preprocessing
from geodtr.training.presets.load import load_preset

SIDES = st.integers(1, 40)


@st.composite
def shrinkings(draw: st.DrawFn) -> tuple[Images, int, int]:
    """An image and a size that is not larger in either direction."""
    image = draw(arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3))))
    height, width = image.shape[:2]
    return image, draw(st.integers(1, height)), draw(st.integers(1, width))


@given(shrinkings())
@settings(deadline=None)
def test_shrinking_by_area_gives_the_pixels_of_opencv(shrinking: tuple[Images, int, int]) -> None:
    image, height, width = shrinking
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(int)
    difference = np.abs(resize_area(image, height, width) - expected)
    # Half a level rounds up or down, depending on float32 sums; at half the size OpenCV always rounds up.
    finer = np.repeat(np.repeat(image, height, axis=0), width, axis=1).astype(np.float64)
    exact = finer.reshape(height, image.shape[0], width, image.shape[1], 3).mean(axis=(1, 3))
    half = np.abs(exact % 1 - 0.5) < 1e-4
    assert difference.max() <= 1
    assert not difference[~half].any()


def test_panoramas_of_cvact_have_the_pixels_of_its_rule() -> None:
    panorama = np.random.default_rng(0).integers(0, 256, (832, 1664, 3), dtype=np.uint8)
    expected = cv2.resize(panorama[208:624], (671, 122), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(preprocess(Image.fromarray(panorama), load_preset("geodtr-cvact").ground), expected)


@given(arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3))), SIDES, SIDES)
@settings(deadline=None)
def test_exact_linear_resizing_gives_the_pixels_of_opencv(image: Images, height: int, width: int) -> None:
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    assert np.array_equal(resize_linear_exact(image, height, width), expected)
    how = Preprocessing(height=height, width=width, resize="opencv-linear-exact")
    assert np.array_equal(preprocess(Image.fromarray(image), how), expected)


@given(arrays(np.uint8, st.tuples(SIDES, SIDES, st.just(3))), SIDES, SIDES)
@settings(deadline=None)
def test_cubic_resizing_gives_the_pixels_of_opencv(image: Images, height: int, width: int) -> None:
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    # OpenCV's vector instructions add in float32.
    assert np.abs(resize_cubic(image, height, width) - expected).max(initial=0) <= 1
    how = Preprocessing(height=height, width=width, resize="opencv-cubic")
    assert np.abs(preprocess(Image.fromarray(image), how) - expected).max(initial=0) <= 1


def test_exact_linear_resizing_rounds_half_a_weight_as_opencv_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (185, 185, 3), np.uint8)  # to 256: weights of 512ths
    expected = cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR_EXACT)
    assert np.array_equal(resize_linear_exact(image, 256, 256), expected)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.4, 0.4, float("nan")), 0.2), (0.5, (0.2, 0.0, 0.2)), ((0.4, 0.4, 0.4), (0.2, 0.2, float("inf")))],
)
def test_a_mean_or_std_out_of_range_is_refused(mean: PerChannel, std: PerChannel) -> None:
    with pytest.raises(ValueError, match="std must be above 0"):
        Preprocessing(height=4, width=6, mean=mean, std=std)


@given(shrinkings())
@settings(deadline=None)
def test_shrinking_by_area_keeps_a_flat_image_flat(shrinking: tuple[Images, int, int]) -> None:
    image, height, width = shrinking
    flat = np.broadcast_to(image[:1, :1], image.shape)
    assert np.array_equal(resize_area(flat, height, width), np.broadcast_to(image[:1, :1], (height, width, 3)))


@given(
    height=st.integers(1, 50),
    rows=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).filter(lambda pair: pair[0] < pair[1]),
    resize=st.sampled_from(["pillow-bilinear-antialias", "area", "opencv-linear-exact", "opencv-cubic"]),
)
@settings(deadline=None)
def test_any_legal_description_gives_an_image_of_its_size(height: int, rows: list[float], resize: str) -> None:
    values = {"height": 7, "width": 11, "rows": rows, "resize": resize}
    how = msgspec.convert(values, type=Preprocessing)
    assert preprocess(Image.new("RGB", (30, height)), how).shape == (7, 11, 3)


def test_only_the_selected_rows_are_used() -> None:
    image = np.zeros((40, 20, 3), np.uint8)
    image[:10], image[30:] = 255, 255
    for resize in ("pillow-bilinear-antialias", "area", "opencv-linear-exact", "opencv-cubic"):
        how = msgspec.convert({"height": 5, "width": 5, "rows": [0.25, 0.75], "resize": resize}, type=Preprocessing)
        assert not preprocess(Image.fromarray(image), how).any()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"height": 0}, "height is 0"),
        ({"width": -3}, "width is -3"),
        ({"width": 10**9}, "width is 1000000000"),
        ({"rows": [0.5, 0.5]}, "rows is 0.5 to 0.5"),
        ({"rows": [0.75, 0.25]}, "rising"),
        ({"rows": [-0.1, 0.5]}, "rows is -0.1"),
        ({"rows": [0.5, 1.5]}, "1.5"),
        ({"rows": [0.0, 0.5], "polar": True}, "polar"),
        ({"rows": [0.5]}, "length"),
        ({"std": 0.0}, "std 0.0"),
        ({"resize": "nearest"}, "nearest"),
    ],
)
def test_a_description_out_of_range_is_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.convert({"height": 8, "width": 8, **values}, type=Preprocessing)


def test_panoramas_are_never_polar_transformed() -> None:
    values = {"branch": "ground", "preprocessing": {"height": 8, "width": 8, "polar": True}, "descriptor_size": 4}
    with pytest.raises(msgspec.ValidationError, match="ground branch cannot be polar"):
        msgspec.convert(values, type=BranchSpec)


def test_descriptions_written_before_rows_and_area_still_load() -> None:
    old = (
        b'{"height":122,"width":671,"polar":false,"mean":0.5,"std":0.5,"resize":"pillow-bilinear-antialias",'
        b'"colour":"RGB","layout":"NHWC","dtype":"uint8"}'
    )
    assert msgspec.json.decode(old, type=Preprocessing) == Preprocessing(height=122, width=671)


def test_the_presets_differ_as_in_the_paper() -> None:
    cvusa, cvact, square = (load_preset(f"geodtr-{name}") for name in ("cvusa", "cvact", "cvusa-square"))

    def of_any_imagery(how: Preprocessing) -> Preprocessing:
        return msgspec.structs.replace(how, imagery=Preprocessing(height=1, width=1).imagery)

    polar = Preprocessing(height=122, width=671, polar=True)
    assert of_any_imagery(cvact.aerial) == of_any_imagery(cvusa.aerial) == polar
    assert of_any_imagery(cvact.ground) == Preprocessing(height=122, width=671, rows=(0.25, 0.75), resize="area")
    assert square.ground == cvusa.ground
    assert of_any_imagery(square.aerial) == Preprocessing(height=256, width=256)


@given(side=st.integers(1, 30), height=st.integers(1, 20), width=st.integers(1, 40), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_polar_transform_is_the_published_formula(side: int, height: int, width: int, seed: int) -> None:
    tile = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    padded = np.pad(tile, ((1, 2), (1, 2), (0, 0))).astype(np.float64)
    expected = np.empty((height, width, 3))
    for i, j in np.ndindex(height, width):
        radius, angle = side / 2 / height * (height - 1 - i), 2 * np.pi * j / width
        row, column = side / 2 + radius * np.cos(angle), side / 2 - radius * np.sin(angle)
        top, left = int(np.floor(row)), int(np.floor(column))
        down, right = row - top, column - left
        (a, b), (c, d) = padded[top + 1 : top + 3, left + 1 : left + 3]
        expected[i, j] = (1 - right) * ((1 - down) * a + down * c) + right * ((1 - down) * b + down * d)
    transformed = polar_transform(tile, height, width)
    np.testing.assert_array_equal(transformed, expected.astype(np.uint8))
    other = np.random.default_rng(seed).integers(0, 256, (side, side, 1), dtype=np.uint8)
    np.testing.assert_array_equal(polar_transform(np.concatenate((tile, other), axis=2), height, width), transformed)


@pytest.mark.parametrize("size", [(30, 40), (2500, 2100)], ids=["in one block of memory", "in several"])
@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(height=8, width=12),
        Preprocessing(height=8, width=12, rows=(0.25, 0.75)),
        Preprocessing(height=8, width=12, rows=(0.25, 0.75), resize="area"),
        Preprocessing(height=8, width=12, polar=True),
    ],
    ids=["resized", "cropped", "area", "polar"],
)
def test_pixels_are_correct_for_images_of_any_memory_size(size: tuple[int, int], how: Preprocessing) -> None:
    size = (size[1], size[1]) if how.polar else size
    image = Image.effect_noise(size, 90).convert("RGB")
    pixels = np.asarray(image)
    assert np.array_equal(pixels_in_place(image)[..., :3], pixels)
    top, bottom = (round(share * len(pixels)) for share in how.rows)
    if how.polar:
        expected = polar_transform(pixels, 8, 12)
    elif how.resize == "area":
        expected = resize_area(pixels[top:bottom], 8, 12)
    else:
        expected = np.asarray(Image.fromarray(pixels[top:bottom]).resize((12, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(preprocess(image, how), expected)


def test_pixels_are_correct_where_pillow_pads_rows() -> None:
    """Pillow sets its memory alignment when it is loaded, so this runs in another process."""
    code = (
        "import numpy as np; from PIL import Image; from geodtr.runtime.images.decode import pixels_in_place\n"
        "pixels = np.random.default_rng(0).integers(0, 256, (33, 33, 3), dtype=np.uint8)\n"
        "assert np.array_equal(pixels_in_place(Image.fromarray(pixels))[..., :3], pixels)"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PILLOW_ALIGNMENT": "16"}, check=True)


def test_rows_are_cropped_from_an_image_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    how = Preprocessing(height=8, width=12, rows=(0.25, 0.75))
    assert preprocess(Image.new("RGB", (40, 30)), how).shape == (8, 12, 3)


def test_borrowed_pixels_outlive_their_image() -> None:
    def noise(seed: int) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    borrowed = [pixels_in_place(noise(seed)) for seed in range(20)]
    later = [noise(seed) for seed in range(100, 120)]  # reuse the memory that was freed
    for seed, pixels in enumerate(borrowed):
        np.testing.assert_array_equal(pixels[..., :3], np.asarray(noise(seed)))
        assert not pixels.flags.writeable
    del later


def test_the_polar_transform_reads_zero_outside_the_tile() -> None:
    # More rows than half the tile's side: the outermost samples are between its edge and the outside.
    transformed = polar_transform(np.full((4, 4, 3), 200, np.uint8), 64, 64)
    assert 0 < transformed[0].min() < 200
    assert transformed[32:].min() >= 199


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[[str], Path]:
    """Write a PNG of 6x4 pixels with a note of how it was prepared."""

    def write(note: str) -> Path:
        info = PngInfo()
        info.add_text(PREPARED_KEY, note)
        Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(tmp_path / "made.png", pnginfo=info)
        return tmp_path / "made.png"

    return write


POLAR = Preprocessing(height=4, width=6, polar=True)


def test_a_prepared_image_is_not_transformed_twice(prepared: Callable[[str], Path]) -> None:
    pixels = load_image(prepared(describe(POLAR.geometry)), POLAR)
    assert np.array_equal(pixels, np.arange(72).reshape(4, 6, 3))
    other_mean = Preprocessing(height=4, width=6, polar=True, mean=0.4, std=0.2)
    assert np.array_equal(load_image(prepared(describe(POLAR.geometry)), other_mean), pixels)


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(height=4, width=6),
        Preprocessing(height=8, width=6, polar=True),
        Preprocessing(height=4, width=6, rows=(0.25, 0.75)),
        Preprocessing(height=4, width=6, resize="area"),
    ],
)
def test_an_image_prepared_in_another_way_is_refused_naming_both(
    prepared: Callable[[str], Path], how: Preprocessing
) -> None:
    path = prepared(describe(POLAR.geometry))
    with pytest.raises(ImageError, match=r"made\.png.*prepared as .*\"polar\":true.*is needed.*data prepare") as error:
        load_image(path, how)
    assert describe(how.geometry) in str(error.value)


@pytest.mark.parametrize("note", ["", "{", "[]", '{"height":4}', "null", "\u00e9"])
def test_an_invalid_note_is_refused(prepared: Callable[[str], Path], note: str) -> None:
    with pytest.raises(ImageError, match=r"made\.png.*is not valid"):
        load_image(prepared(note), POLAR)


def test_a_prepared_image_that_was_resized_afterwards_is_refused(prepared: Callable[[str], Path]) -> None:
    how = Preprocessing(height=8, width=12, polar=True)
    with pytest.raises(ImageError, match="has 6x4 pixels"):
        load_image(prepared(describe(how.geometry)), how)
