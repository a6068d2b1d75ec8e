"""Training is reproducible, learns, and refuses what it cannot learn from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Trained

from geodtr.export.pixel_baseline import pixel_baseline
from geodtr.runtime.errors import ConfigError, OutputExists
from geodtr.runtime.spec import Preprocessing
from geodtr.training.checkpoint import load_checkpoint
from geodtr.training.config import load_preset, preset_names
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluate import evaluate
from geodtr.training.loop import Step, TrainingDiverged, train
from geodtr.training.losses import counterfactual, soft_margin_triplet
from geodtr.training.models.embedder import embedders
from geodtr.training.models.geodtr import BackboneConfig, GeoDTR, GeoDTRConfig, positions


@pytest.fixture
def few(trained: Trained) -> PairSet:
    return PairSet("few", trained.train_set.pairs[:32])


def test_a_trained_model_beats_raw_pixels_on_unseen_ground(trained: Trained) -> None:
    pair = embedders(load_checkpoint(trained.checkpoint).model)
    learned = evaluate(pair, trained.test_set)
    assert learned.at_1 > 0.3
    assert learned.at_1 > 3 * evaluate(pixel_baseline(pair), trained.test_set).at_1
    assert not learned.suspicious


def test_one_seed_gives_one_model(few: PairSet, tmp_path: Path) -> None:
    steps: list[list[Step]] = [[], [], []]
    for run, seed in enumerate((3, 3, 4)):
        config = load_preset("world-tiny", epochs=2, seed=seed)
        train(config, few, tmp_path / str(run), on_step=steps[run].append)
    assert steps[0] == steps[1]
    assert steps[0] != steps[2]
    weights = [load_checkpoint(tmp_path / str(run) / "last.safetensors").model.state_dict() for run in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_leaves_the_callers_random_numbers_alone(few: PairSet, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    train(load_preset("world-tiny", epochs=1), few, tmp_path / "run")
    assert torch.equal(torch.rand(1), expected)


def test_fewer_pairs_than_a_batch_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fewer than one batch of 16"):
        train(load_preset("world-tiny"), PairSet("one", trained.train_set.pairs[:1]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_training_stops_and_says_where(few: PairSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="at step"):
        train(load_preset("world-tiny", learning_rate=1e30, epochs=4), few, tmp_path / "run")


def test_a_run_is_not_overwritten(few: PairSet, tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(OutputExists):
        train(load_preset("world-tiny"), few, tmp_path)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds_its_model(name: str) -> None:
    config = load_preset(name)
    model = GeoDTR(config.model, config.ground, config.aerial)
    assert model.specs["ground"].descriptor_size == model.specs["aerial"].descriptor_size


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": "fast"}, {"epoch": 3}])
def test_a_wrong_configuration_value_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"epochs|batch_size|learning_rate|epoch"):
        load_preset("world-tiny", **changes)


@pytest.mark.parametrize(("height", "width"), [(48, 192), (50, 201), (33, 128), (256, 256)])
def test_any_input_size_works(height: int, width: int) -> None:
    backbone = BackboneConfig(widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1))
    how = Preprocessing(height=height, width=width)
    size = positions(backbone, how) // 2
    heads = next(heads for heads in (4, 3, 2, 1) if size % heads == 0)
    model = GeoDTR(GeoDTRConfig(backbone=backbone, heads=heads, feed_forward=8), how, how).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    descriptors = embedders(model).ground.embed(images)
    assert descriptors.shape == (2, 8 * 8)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)


def test_heads_that_do_not_divide_are_refused_with_those_that_do() -> None:
    config = GeoDTRConfig(heads=5)
    how = Preprocessing(height=122, width=671)
    with pytest.raises(ConfigError, match="allowed here: 1, 2, 3, 4, 6"):
        GeoDTR(config, how, how)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_and_their_gradients_are_finite_in_half_precision(dtype: torch.dtype) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    ground, aerial = vectors.to(dtype).requires_grad_(), (-vectors).to(dtype).requires_grad_()
    loss = soft_margin_triplet(ground, aerial) + counterfactual(ground, aerial)
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    for leaf in (ground, aerial):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
