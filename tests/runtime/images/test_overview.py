"""An overview is the same image once more, at its own size, and goes with images that are resized."""

import numpy as np
import pytest
from PIL import Image

from geodtr.runtime.images.preprocess import parts, preprocess
from geodtr.runtime.spec import Preprocessing, Resize

SOURCE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (37, 50, 3), np.uint8))


@pytest.mark.parametrize("resize", ["pillow-bilinear-antialias", "area", "opencv-linear-exact"])
@pytest.mark.parametrize("rows", [(0.0, 1.0), (0.25, 0.75)])
def test_both_parts_are_what_each_size_alone_gives(resize: Resize, rows: tuple[float, float]) -> None:
    how = Preprocessing(height=20, width=24, rows=rows, resize=resize, overview=13)
    pixels = preprocess(SOURCE, how)
    assert pixels.shape == how.shape == (20, 24 + 13, 3)
    image, overview = parts(pixels, how)
    for part, (height, width) in ((image, (20, 24)), (overview, (13, 13))):
        alone = preprocess(SOURCE, Preprocessing(height=height, width=width, rows=rows, resize=resize))
        np.testing.assert_array_equal(part, alone)
    assert not pixels[13:, 24:].any()


@pytest.mark.parametrize("values", [{"overview": 21}, {"overview": -1}, {"overview": 4, "polar": True}])
def test_an_overview_that_does_not_fit_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="overview is"):
        Preprocessing(height=20, width=24, **values)  # type: ignore[arg-type] # a mistake in a manifest
