"""Quantisation-aware fine-tuning computes as the engines do, and leaves an ordinary checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import Outcome, Trained

from geodtr.calibration.operators import operators
from geodtr.calibration.ranges import RangeOptions, calibrate
from geodtr.export.calibration_pool import pool_of
from geodtr.export.finetune import finetune_config
from geodtr.export.precision.cosine_selection import describe
from geodtr.export.precision.int8 import with_quantised, with_types
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.engines.onnxruntime import Optimisation
from geodtr.runtime.machine import this_cpu
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.qat import simulate_int8


@pytest.fixture
def run(trained: Trained) -> Path:
    return trained.checkpoint.parent


def test_the_simulation_turns_descriptors_as_the_engine_does(trained: Trained, run: Path) -> None:
    pool, options = pool_of(trained.train_set), RangeOptions(images=40)
    config = finetune_config(run, pool, options, "cpu-8bit")
    model = load_checkpoint(run).model
    images = next(load_batches(trained.test_set.paths("ground")[:40], config.ground, 40))
    exact = embedders(model).ground.embed(images)
    simulate_int8(model, config.int8)
    simulated = embedders(model).ground.embed(images)
    activations = calibrate(trained.onnx, pool, options).ranges.ground.activations
    graph = onnx.load(str(trained.onnx.path / "ground.onnx"))
    convolutions = [operator.name for operator in operators(graph) if operator.kind == "Conv"]
    # Without VNNI integer kernels saturate; the graph computed as it is written does not.
    how: Optimisation = "all" if this_cpu().vnni else "none"
    engine = describe(with_quantised(with_types(graph), activations, "cpu-8bit", convolutions), images, how)
    apart, simulated_apart = (1 - np.sum(exact * rows, axis=1) for rows in (engine, simulated))
    assert simulated_apart.mean() == pytest.approx(apart.mean(), rel=0.2)
    assert np.corrcoef(simulated_apart, apart)[0, 1] > 0.8
    assert (1 - np.sum(simulated * engine, axis=1)).mean() < 0.7 * apart.mean()


def test_gradients_pass_through_the_rounding(trained: Trained, run: Path) -> None:
    config = finetune_config(run, pool_of(trained.train_set), RangeOptions(images=8), "cpu-8bit")
    model = load_checkpoint(run).model.train()
    simulate_int8(model, config.int8)
    images = torch.rand(4, 3, config.ground.height, config.ground.width)
    model.ground(images)[:, :64].sum().backward()
    convolutions = [weight for name, weight in model.ground.named_parameters() if "conv" in name]
    assert convolutions
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in convolutions)


def test_a_fine_tuned_run_is_a_checkpoint_like_any_other(
    trained: Trained, run: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    asked = ("finetune", run, "--data", trained.train_set.name, "--epochs", 1, "--images", 40, "--out", out)
    result = cli(*asked, "--set", "recipe.batch_size=32")
    assert result.code == 0, result.err
    before, after = load_checkpoint(run).model.state_dict(), load_checkpoint(out).model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)
    assert any(not torch.equal(before[name], after[name]) for name in before if "conv" in name)
    assert cli("resume", out).code == 0
    engine = tmp_path / "engine"
    built = cli("build-engine", out, "--precision", "int8", "--calibration", trained.train_set.name, "--out", engine)
    assert built.code == 0, built.err


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("int8.weight_bits=4", "int8.weight_bits: 4 is not allowed; allowed: 7, 8"),
        ("machine.precision=half", "machine.precision: 'half' is not allowed; allowed: float32, bf16, fp16"),
        ("int8.bits=7", "'int8.bits' is not a setting"),
    ],
)
def test_a_setting_that_cannot_be_is_said_before_the_work(
    trained: Trained, run: Path, refused: Callable[..., str], tmp_path: Path, setting: str, named: str
) -> None:
    asked = ("finetune", run, "--data", trained.train_set.name, "--set", setting, "--out", tmp_path / "tuned")
    message = refused(*asked)
    assert named in message
    assert "Calibrating" not in message


def test_a_checkpoint_alone_needs_its_recipe_named(
    trained: Trained, refused: Callable[..., str], tmp_path: Path
) -> None:
    asked = ("finetune", trained.checkpoint, "--data", trained.train_set.name, "--out", tmp_path / "tuned")
    assert "--preset" in refused(*asked)


def test_what_is_no_checkpoint_is_said_to_be_none(
    trained: Trained, refused: Callable[..., str], tmp_path: Path
) -> None:
    asked = ("finetune", tmp_path / "nowhere", "--data", trained.train_set.name, "--out", tmp_path / "tuned")
    assert "is not a checkpoint file" in " ".join(refused(*asked).split())
