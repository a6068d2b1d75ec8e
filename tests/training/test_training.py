"""Training is reproducible, learns, and refuses what it cannot learn from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Losses, Trained, World

from geodtr.export.pixel_baseline import pixel_baseline
from geodtr.runtime.errors import ConfigError, DataError, OutputExists
from geodtr.runtime.spec import Preprocessing
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import evaluate
from geodtr.training.loop import train
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.geodtr.geodtr import BackboneConfig, GeoDTR, GeoDTRConfig, positions
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import TrainingDiverged, memory_format


@pytest.fixture
def few(world: World) -> PairSet:
    return PairSet("few", world.train_set.pairs[:32])


def test_a_trained_model_beats_raw_pixels_on_unseen_ground(trained: Trained) -> None:
    pair = embedders(load_checkpoint(trained.checkpoint).model)
    learned = evaluate(pair, trained.test_set)
    assert learned.at_1 > 0.3
    assert learned.at_1 > 3 * evaluate(pixel_baseline(pair), trained.test_set).at_1
    assert not learned.suspicious


@pytest.mark.slow
def test_the_hardest_triplets_teach_more_and_collapse_nothing(trained: Trained, tmp_path: Path) -> None:
    """Counted alone from the first step on they draw all descriptors into one point."""
    checkpoint = train(load_preset("world-tiny", ["recipe.hardest=0.05"]), trained.train_set, tmp_path / "run")
    usual, hard = (
        evaluate(embedders(load_checkpoint(path).model), trained.test_set) for path in (trained.checkpoint, checkpoint)
    )
    assert hard.at_1 > usual.at_1
    assert not hard.suspicious


def test_one_seed_gives_one_model(few: PairSet, tmp_path: Path) -> None:
    heard = [Losses() for _ in range(3)]
    for run, seed in enumerate((3, 3, 4)):
        config = load_preset("world-tiny", ["recipe.epochs=2", f"recipe.seed={seed}", "recipe.semantic=strong"])
        train(config, few, tmp_path / str(run), listener=heard[run])
    assert heard[0].losses == heard[1].losses
    assert heard[0].losses != heard[2].losses
    weights = [load_checkpoint(tmp_path / str(run) / "last.safetensors").model.state_dict() for run in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_leaves_the_callers_random_numbers_alone(few: PairSet, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    train(load_preset("world-tiny", ["recipe.epochs=1"]), few, tmp_path / "run")
    assert torch.equal(torch.rand(1), expected)


def test_fewer_pairs_than_a_batch_are_refused(world: World, tmp_path: Path) -> None:
    for count, message in ((1, "holds one pair"), (3, r"fewer than one batch of 16.*recipe\.batch_size=3")):
        with pytest.raises(ConfigError, match=message):
            train(load_preset("world-tiny"), world.train_set.first(count), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_training_stops_and_names_the_step(few: PairSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="at step"):
        train(load_preset("world-tiny", ["recipe.learning_rate=1e30", "recipe.epochs=4"]), few, tmp_path / "run")


def test_a_run_is_not_overwritten(few: PairSet, tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(OutputExists):
        train(load_preset("world-tiny"), few, tmp_path)


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


def test_an_unreadable_image_does_not_stop_training(few: PairSet, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(few.pairs[3].ground.read_bytes()[:300])
    damaged = PairSet(
        "damaged", tuple(replace(pair, ground=broken) if pair is few.pairs[3] else pair for pair in few.pairs)
    )
    for cache, batch_size in ((4.0, 31), (0.0, 32)):
        heard = Losses()
        settings = ["recipe.epochs=2", f"recipe.batch_size={batch_size}", f"machine.cache_gb={cache}"]
        train(load_preset("world-tiny", settings), damaged, tmp_path / str(cache), listener=heard)
        assert len(heard.losses) == 2
        assert {skipped.path for skipped in heard.skipped} == {broken}


def test_images_decoded_again_each_epoch_train_the_same_model(few: PairSet, tmp_path: Path) -> None:
    for cache in (4.0, 0.0):
        config = load_preset("world-tiny", ["recipe.epochs=2", f"machine.cache_gb={cache}"])
        train(config, few, tmp_path / str(cache))
    held, streamed = (load_checkpoint(tmp_path / str(cache)).model.state_dict() for cache in (4.0, 0.0))
    assert all(torch.equal(held[name], streamed[name]) for name in held)


def test_validation_keeps_the_best_epoch(world: World, few: PairSet, tmp_path: Path) -> None:
    heard = Losses()
    config = load_preset("world-tiny", ["recipe.epochs=4", "machine.validate_every=2"])
    last = train(config, few, tmp_path / "run", validation=world.test_set.first(50), listener=heard)
    assert [validation.epoch for validation in heard.validations] == [1, 3]
    assert heard.validations[0].best
    best = load_checkpoint(last.with_name("best.safetensors"))
    assert best.info.trained_on == few.name
    result = evaluate(embedders(best.model), world.test_set.first(50))
    assert result.at_1 == max(validation.recall.at_1 for validation in heard.validations)


@pytest.mark.parametrize("setting", [pytest.param("compile", marks=pytest.mark.slow), "channels_last"])
def test_what_only_changes_speed_does_not_change_the_model(few: PairSet, tmp_path: Path, setting: str) -> None:
    losses = []
    for value in ("false", "true"):
        heard = Losses()
        config = load_preset("world-tiny", ["recipe.epochs=1", f"machine.{setting}={value}"])
        train(config, few, tmp_path / value, listener=heard)
        losses.append(heard.losses)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("cpu", "preset", "setting", "wanted"),
    [
        ("AVX2", "geodtr-cvusa", (), torch.contiguous_format),
        ("AVX2", "world-tiny", (), torch.channels_last),
        ("AVX512", "geodtr-cvusa", (), torch.channels_last),
        ("AVX2", "geodtr-cvusa", ["machine.channels_last=true"], torch.channels_last),
    ],
)
def test_the_order_in_memory_is_the_faster_one_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, cpu: str, preset: str, setting: Sequence[str], wanted: torch.memory_format
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    assert memory_format(load_preset(preset, setting), torch.device("cpu")) == wanted


def test_unusable_training_and_validation_sets_are_refused_before_the_first_step(
    world: World, few: PairSet, tmp_path: Path
) -> None:
    config = load_preset("world-tiny", ["recipe.epochs=1"])
    one_tile = PairSet("one tile", tuple(replace(pair, aerial=few.pairs[0].aerial) for pair in few.pairs))
    with pytest.raises(DataError, match="share one tile"):
        train(config, one_tile, tmp_path / "run")
    with pytest.raises(DataError, match="holds one tile"):
        train(config, few, tmp_path / "run", validation=world.test_set.first(1))
    oblong = PairSet("oblong", tuple(replace(pair, aerial=pair.ground) for pair in few.pairs))
    with pytest.raises(DataError, match="square"):
        train(config, few, tmp_path / "run", validation=oblong)
    assert not (tmp_path / "run").exists()
