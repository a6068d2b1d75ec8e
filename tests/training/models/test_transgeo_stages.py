"""A run of TransGeo's stage 2 begins with a run of stage 1, and its model does all that others do."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, Stop, Stopping, World

from geodtr import open_bundle
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.images.preprocess import load_image, parts
from geodtr.training.config import TrainConfig
from geodtr.training.data.pair_set import PairSet
from geodtr.training.loop import resume, train
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.presets.load import load_preset

SMALL = ("model.width=32", "model.layers=2", "model.heads=2", "model.feed_forward=32", "model.descriptor_size=16")
ASAM = (*SMALL, "recipe.batch_size=8", "recipe.sharpness=2.5", "recipe.negatives=mined")


def _config(stage_1: Path, *settings: str) -> TrainConfig:
    return load_preset("world-transgeo-stage2", (*ASAM, "recipe.epochs=2", f"recipe.start={stage_1}", *settings))


@pytest.fixture(scope="module")
def few(world: World) -> PairSet:
    return world.train_set.first(24)


@pytest.fixture(scope="module")
def stage_1(few: PairSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_preset("world-transgeo", (*ASAM, "recipe.epochs=1"))
    return train(config, few, tmp_path_factory.mktemp("stage") / "1")


@pytest.fixture(scope="module")
def stage_2(few: PairSet, stage_1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(_config(stage_1), few, tmp_path_factory.mktemp("stage") / "2")


def test_the_map_stays_stage_1_s_while_the_rest_trains(stage_1: Path, stage_2: Path) -> None:
    before, after = (load_checkpoint(path).model.state_dict() for path in (stage_1, stage_2))
    of_map = {name for name in after if name.startswith("aerial.map.")}
    assert "aerial.map.layers.1.attention.key.weight" in of_map
    for name in of_map:
        assert torch.equal(after[name], before[name.replace("map.", "")]), name
    trained = {name for name in after.keys() - of_map if after[name].shape == before[name].shape}
    assert after.keys() - of_map - trained == {"aerial.tokens.position"}
    assert not any(torch.equal(after[name], before[name]) for name in trained if name.endswith("weight"))


def test_an_interrupted_run_of_stage_2_resumes_to_the_same_model(
    few: PairSet, stage_1: Path, stage_2: Path, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        train(_config(stage_1), few, tmp_path / "run", listener=Stopping(after=4))
    assert resume(tmp_path / "run", few).read_bytes() == stage_2.read_bytes()


def test_stage_2_begins_with_stage_1_alone(
    few: PairSet, world: World, stage_1: Path, stage_2: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    folder = world.train_set.pairs[0].ground.parents[1]
    message = refused(
        "train",
        "--preset",
        "world-transgeo-stage2",
        "--data",
        f"pairs:{folder}",
        "--limit",
        24,
        "--out",
        tmp_path / "a",
    )
    assert "begins with the weights and the attention map of stage 1" in message
    assert "recipe.start=RUN" in message
    with pytest.raises(
        ConfigError, match=r"differs from what stage 2 begins with: aerial\.height is 64 there, 56 here"
    ):
        train(_config(stage_1, "aerial.overview=56"), few, tmp_path / "b")
    with pytest.raises(ConfigError, match=r"model\.heads is 2 there, 4 here"):
        train(_config(stage_1, "model.heads=4"), few, tmp_path / "c")
    with pytest.raises(ConfigError, match="model is transgeo-stage2 there, transgeo here"):
        train(load_preset("world-transgeo", (*ASAM, f"recipe.start={stage_2}")), few, tmp_path / "d")
    # Stage 2 goes on from stage 2 as it is.
    again = train(_config(stage_2, "recipe.epochs=1", "recipe.learning_rate=1e-12"), few, tmp_path / "e")
    for name, tensor in load_checkpoint(again).model.state_dict().items():
        torch.testing.assert_close(tensor, load_checkpoint(stage_2).model.state_dict()[name], rtol=0, atol=1e-6)


def test_prepared_images_hold_their_overview(
    stage_2: Path, world: World, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    folder, out = world.test_set.pairs[0].ground.parents[1], tmp_path / "prepared"
    prepared = cli(
        "data", "prepare", f"pairs:{folder}", "--limit", 6, "--preset", "world-transgeo-stage2", "--out", out
    )
    assert prepared.code == 0, prepared.err
    how = load_checkpoint(stage_2).info.aerial
    file = sorted((out / "aerial").iterdir())[0]
    image, overview = parts(load_image(file, how), how)
    assert (image.shape, overview.shape) == ((80, 80, 3), (64, 64, 3))
    evaluated = cli("evaluate", stage_2, "--data", f"prepared:{out}", "--json")
    assert evaluated.code == 0, evaluated.err


def test_it_finds_its_tiles_by_a_bundle_and_a_gallery(
    stage_2: Path, world: World, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    """From the checkpoint to a position: build, bench, gallery, localize."""
    folder = world.test_set.pairs[0].ground.parents[1]
    bundle, gallery = tmp_path / "bundle", tmp_path / "gallery"
    for command in (
        ("build-engine", stage_2, "--backend", "onnxruntime", "--precision", "fp32", "--out", bundle),
        ("bench", bundle, "--batch", 2),
        ("gallery", "build", bundle, f"pairs:{folder}", "--out", gallery),
    ):
        done = cli(*command)
        assert done.code == 0, done.err
    tile = world.test_set.pairs[0].aerial
    (row,) = open_bundle(bundle).embedder("aerial").embed(load_image(tile, load_checkpoint(stage_2).info.aerial)[None])
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)
    located = cli("localize", world.test_set.pairs[0].ground, "--bundle", bundle, "--gallery", gallery, "--json")
    assert located.code == 0, located.err
    assert len(json.loads(located.out)["candidates"]) > 1
