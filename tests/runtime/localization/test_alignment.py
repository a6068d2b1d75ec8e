"""A frame is aligned with the map in other light, and matched to a fraction of a pixel."""

import math

import numpy as np
import pytest
from PIL import Image

from geodtr.runtime.images.nadir import from_crop
from geodtr.runtime.localization.nadir.alignment import Aligner, spectra_of
from geodtr.runtime.localization.nadir.map_window import MapWindow
from geodtr.runtime.localization.nadir.matching import Patches
from geodtr.runtime.spec import Images

SIDE, RESOLUTION = 160, 2.0


def ground(seed: int = 0, side: int = SIDE) -> Images:
    noise = np.random.default_rng(seed).integers(0, 256, (side // 6, side // 6, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


def window(image: Images) -> MapWindow:
    return MapWindow(image, np.ones(image.shape[:2], np.bool_), RESOLUTION)


def photographed(image: Images, middle: tuple[float, float], heading: float, width: float) -> Images:
    """What a frame of 64 x 48 pixels shows around a place, metres east and north of the window's middle."""
    size = (64, 48)
    # The other way round than a crop: each pixel of the frame is looked up in the window.
    to_frame = from_crop(size, width / size[0], heading, SIDE, RESOLUTION)
    to_frame[:, 2] += to_frame[:, :2] @ (-middle[0] / RESOLUTION, middle[1] / RESOLUTION)
    (a, b, c), (d, e, f) = np.linalg.inv(np.vstack([to_frame, (0, 0, 1)]))[:2]
    picture = Image.fromarray(image).transform(
        size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC
    )
    return np.asarray(picture)


@pytest.mark.parametrize("inverted", [False, True])
def test_offset_heading_and_width_are_found_whichever_side_of_an_edge_is_darker(inverted: bool) -> None:
    image = ground()
    frame = photographed(image, (30.0, -24.0), 100.0, 130.0)
    if inverted:
        frame = 255 - frame
    alignment = Aligner(frame).align(
        spectra_of(window(image)), [92.0, 96.0, 100.0, 104.0], [120.0, 125.0, 130.0, 135.0]
    )
    assert (alignment.heading, alignment.width) == (100.0, 130.0)
    assert np.allclose(alignment.middle, (30, -24), atol=RESOLUTION)
    elsewhere = Aligner(frame).align(
        spectra_of(window(ground(1))), [92.0, 96.0, 100.0, 104.0], [120.0, 125.0, 130.0, 135.0]
    )
    assert alignment.score > 0.7
    assert elsewhere.score < 0.4


def test_what_is_unknown_of_the_map_does_not_count() -> None:
    image = ground()
    frame = photographed(image, (0.0, 0.0), 0.0, 130.0)
    whole = window(image)
    none = MapWindow(image, np.zeros_like(whole.known), RESOLUTION)
    assert Aligner(frame).align(spectra_of(none), [0.0], [130.0]).score == 0


def test_patches_are_found_to_a_fraction_of_a_pixel() -> None:
    reach, shift = 6, 2.4
    image = ground(2, 240)
    moved = Image.fromarray(image).transform(
        image.shape[:2], Image.Transform.AFFINE, (1, 0, -shift, 0, 1, 0), Image.Resampling.BICUBIC
    )
    frame = 255 - image[reach:-reach, reach:-reach]
    inside = np.ones(frame.shape[:2], np.bool_)
    inside[:, :40] = False
    matches = Patches().match(frame, inside, np.asarray(moved), reach)
    assert len(matches.frame) > 50
    assert matches.frame[:, 0].min() >= 40
    off = matches.ground - matches.frame - reach
    assert np.abs(np.median(off, axis=0) - (shift, 0)).max() < 0.1
    assert 0 < matches.independent < 1


def test_a_bare_field_has_no_matches() -> None:
    bare = np.full((120, 120, 3), 90, np.uint8)
    matches = Patches().match(bare[6:-6, 6:-6], np.ones((108, 108), np.bool_), bare, 6)
    assert matches.frame.shape == matches.ground.shape == (0, 2)
    assert math.isfinite(matches.independent)
