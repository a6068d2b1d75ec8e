"""The images of a training step: each kind of image is changed as it can be, and a step's draws stay the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import World
from torch import Tensor

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.training.augmented import augmented
from geodtr.training.loop import train
from geodtr.training.models.embedder import normalise
from geodtr.training.pair_images import PairBatch
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset


def _images(count: int, height: int, width: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8))


def test_a_nadir_frame_rotates_with_its_tile_in_training() -> None:
    """Both are north-up squares: rolled by columns as a panorama is, the frame would no longer show its tile."""
    config = load_preset("world-nadir", changes={"recipe.batch_size": 16, "recipe.semantic": "none"})
    images = _images(16, config.ground.height, config.ground.width, 0)
    batch = PairBatch(images, images, torch.arange(16))
    (augmentation,) = augmented(config, [batch], 0, Ranks(), _each_branch, torch.contiguous_format)
    ground, aerial = augmentation["ground"], augmentation["aerial"]
    assert torch.equal(ground, aerial)
    unchanged = normalise(images, config.ground.mean, config.ground.std)
    assert not torch.equal(ground, unchanged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ground.width": 32}, "ground is 64x32"),
        ({"recipe.heading_error": 5.0}, "heading_error is 5"),
        ({"recipe.fields": (90.0,)}, r"fields are \[90\]"),
    ],
)
def test_what_shifts_columns_is_refused_of_nadir_frames(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset("world-nadir", changes=change)


AHEAD = {"ground.imagery.projection": "panorama", "ground.imagery.field_of_view": 90.0}


PERSPECTIVE = {"ground.imagery.projection": "perspective"}


@pytest.mark.parametrize("imagery", [AHEAD, PERSPECTIVE])
@pytest.mark.parametrize("change", [{}, {"recipe.layout": "weak", "recipe.heading_error": 5.0}])
def test_images_that_look_ahead_are_not_rolled(
    world: World, tmp_path: Path, imagery: dict[str, object], change: dict[str, object]
) -> None:
    with pytest.raises(
        ConfigError, match=r"less than a full turn\. Set recipe\.heading_error=0 and recipe\.layout=weak"
    ):
        train(load_preset("world-tiny", changes={**imagery, **change}), world.train_set, tmp_path / "run")
    load_preset("world-tiny", changes={**imagery, **change, "recipe.fields": (90.0,)}).check_rolls()


@pytest.mark.parametrize("imagery", [AHEAD, PERSPECTIVE])
def test_an_image_that_looks_ahead_is_mirrored_about_its_middle(imagery: dict[str, object]) -> None:
    changes = {**imagery, "recipe.layout": "weak", "recipe.batch_size": 8, "recipe.semantic": "none"}
    config = load_preset("world-tiny", changes={**changes, "recipe.views": 1})
    images = _images(8, config.ground.height, config.ground.width, 0)
    batch = PairBatch(images, _images(8, config.aerial.height, config.aerial.width, 0), torch.arange(8))
    (augmentation,) = augmented(config, [batch], 0, Ranks(), _each_branch, torch.contiguous_format)
    as_is, mirrored = (normalise(each, config.ground.mean, config.ground.std) for each in (images, images.flip(2)))
    views = zip(augmentation["ground"], as_is, mirrored, strict=True)
    kinds = {(torch.equal(image, own), torch.equal(image, flipped)) for image, own, flipped in views}
    assert kinds == {(True, False), (False, True)}


def _each_branch(prepare: Callable[[Branch], Tensor]) -> dict[Branch, Tensor]:
    return {branch: prepare(branch) for branch in BRANCHES}


def test_the_changes_of_a_step_are_the_same_in_every_version() -> None:
    """A run that an earlier version began goes on as it would have."""
    config = load_preset("world-tiny")
    columns = torch.arange(128, dtype=torch.uint8)[:, None].expand(16, 32, 128, 3)
    batch = [PairBatch(columns, columns, torch.arange(16))]

    (images,) = augmented(config, batch, 1, Ranks(), _each_branch, torch.contiguous_format)
    # The first column of each image, and which are mirrored.
    first = [67, 61, 62, 1, 1, 49, 67, 70, 70, 110, 16, 57, 100, 14, 12, 54]
    mirrored = [each == "m" for each in "mmm...m..mmmm..m"]
    for branch in BRANCHES:
        pixels = torch.round((images[branch] * 0.5 + 0.5) * 255).int()
        assert pixels[:, 0, 0, 0].tolist() == first
        assert (pixels[:, 0, 0, 1] < pixels[:, 0, 0, 0]).tolist() == mirrored
        assert (pixels == pixels[:, :1, :1]).all()
