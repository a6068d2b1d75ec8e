"""Sample4Geo's photometric augmentation: how often, how strong, and of each image alone."""

import pytest
import torch

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.augment.sample4geo import Sample4GeoChange, draw_sample4geo
from geodtr.training.presets.load import load_preset

GREY = 160
"""A level that stays within 0 and 255 under any change of colours and edges."""


def _drawn(branch: Branch, images: int) -> Sample4GeoChange:
    return draw_sample4geo(branch, images, torch.Generator().manual_seed(0))


def test_an_image_is_changed_the_same_in_every_batch() -> None:
    images = torch.randint(256, (12, 24, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    change = _drawn("ground", 12)
    whole = change.apply(images)
    assert whole.dtype == torch.uint8
    assert torch.equal(change.rows(slice(3, 7)).apply(images[3:7]), whole[3:7])
    assert not torch.equal(_drawn("aerial", 12).rows(slice(0, 12)).apply(images), whole)


@pytest.mark.parametrize("branch", BRANCHES)
def test_rectangles_are_dropped_as_often_and_as_large_as_in_the_release(branch: Branch) -> None:
    count, height, width = 400, 40, 80
    changed = _drawn(branch, count).apply(torch.full((count, height, width, 3), GREY, dtype=torch.uint8))
    dropped = (changed == 0).all(dim=3)
    share = dropped.flatten(1).float().mean(dim=1)
    hit = share > 0
    assert hit.float().mean().item() == pytest.approx(0.3, abs=0.08)
    # A grid of 8 x 8 cells, in each of which a square of side 4 or 3 is dropped.
    side = {"ground": 4, "aerial": 3}[branch]
    gridded = (share - (side / 8) ** 2).abs() < 1e-6
    assert (gridded & hit).sum().item() / hit.sum().item() == pytest.approx(0.5, abs=0.16)
    holes = share[hit & ~gridded]
    # 10 to 25 holes of 4 to 8 pixels a side, which may overlap.
    assert 10 * 4 * 4 / (height * width) / 2 < holes.min()
    assert holes.max() < 25 * 8 * 8 / (height * width)


def test_colours_move_by_no_more_than_fifteen_percent() -> None:
    count = 400
    changed = _drawn("ground", count).apply(torch.full((count, 16, 16, 3), GREY, dtype=torch.uint8))
    level = changed.flatten(1).amax(dim=1).float() / GREY
    assert (level - 1).abs().max() < 0.15 + 0.25 + 0.02  # sharpening takes a quarter of a flat level at most
    unmoved = (level - 1).abs() < 0.01
    assert unmoved.float().mean().item() == pytest.approx(0.5 * 0.85, abs=0.1)  # neither colours nor sharpening
    red = torch.tensor([200, 60, 60], dtype=torch.uint8).expand(count, 16, 16, 3)
    green = _drawn("ground", count).apply(red)[..., 1].flatten(1).amax(dim=1)
    assert green.max() > 100  # the hue moves too


def test_the_release_s_presets_use_it_and_others_are_named() -> None:
    for preset in ("sample4geo-cvusa", "sample4geo-vigor"):
        assert load_preset(preset).recipe.semantic == "sample4geo"
    with pytest.raises(ConfigError, match="allowed: strong, weak, none, sample4geo"):
        load_preset("sample4geo-cvusa", ["recipe.semantic=stronger"])
