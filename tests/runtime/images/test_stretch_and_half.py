"""Two roundings of other libraries: OpenCV's area mean at exactly half the size, SciPy's stretched levels."""

import numpy as np
import pytest

from geodtr.runtime.images.polar import polar_transform
from geodtr.runtime.images.resize import resize_area
from geodtr.runtime.spec import Preprocessing


def test_at_half_the_size_half_a_level_is_rounded_up() -> None:
    image = np.array([[0, 1, 2, 3], [1, 0, 2, 3]], np.uint8)[..., None].repeat(3, axis=2)
    assert resize_area(image, 1, 2)[0, :, 0].tolist() == [1, 3]
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    np.testing.assert_array_equal(resize_area(noise, 20, 30), cv2.resize(noise, (30, 20), interpolation=cv2.INTER_AREA))


def test_stretched_levels_go_from_0_to_255_and_keep_their_order() -> None:
    tile = np.random.default_rng(1).integers(60, 120, (64, 64, 3), np.uint8)
    plain = polar_transform(tile, 16, 32)[4:]  # above are corners outside the tile
    stretched = polar_transform(tile, 16, 32, stretch=True)
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert np.corrcoef(plain.ravel(), stretched[4:].ravel())[0, 1] > 0.99
    grey = polar_transform(np.full((64, 64, 3), 9, np.uint8), 16, 32, stretch=True)
    assert set(np.unique(grey)) <= {0, 255}


def test_only_polar_images_are_stretched() -> None:
    with pytest.raises(ValueError, match="set polar as well"):
        Preprocessing(height=8, width=8, stretch=True)
