"""Processes that share each batch train the model that one process trains."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rank_gradients
import torch
from checkout import SUPPORT
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geodtr.training.parallel.distributed import Ranks, share_batch_norm
from geodtr.training.world.dataset import WorldSet, write_world

MODULE = ["-m", "geodtr.cli.main"]
TWO_RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("world") / "pairs"
    write_world(folder, WorldSet(pairs=96, height=32, width=128))
    return f"pairs:{folder}"


def test_two_processes_have_the_gradient_of_one_to_the_last_digits_of_float64(tmp_path: Path) -> None:
    rank_gradients.main(str(tmp_path / "one"))
    script = str(SUPPORT / "rank_gradients.py")
    subprocess.run([sys.executable, script, tmp_path / "two", "2"], check=True, capture_output=True)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    assert len(one) == 15
    for key, expected in one.items():
        torch.testing.assert_close(two[key], expected, rtol=1e-9, atol=1e-12, msg=key)


def test_what_is_frozen_stays_frozen_in_several_processes() -> None:
    network = torch.nn.Sequential(torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.nn.BatchNorm2d(3))
    network[0].requires_grad_(False)
    before = list(network.parameters())
    share_batch_norm(network, Ranks(0, 2))
    assert all(one is other for one, other in zip(network.parameters(), before, strict=True))
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [16, 8])
def test_two_processes_give_the_losses_of_one(data: str, tmp_path: Path, micro_batch: int) -> None:
    command = ["train", "--data", data, "--validation", data, "--preset", "world-tiny", "--epochs", "3"]
    command += ["--set", f"recipe.micro_batch={micro_batch}"]
    # At a full rate, Adam's first steps and the arg-max of the saliency blow rounding up to percents within ten steps.
    command += ["--set", "recipe.semantic=strong", "--set", "recipe.learning_rate=1e-5"]
    for name, launcher in (("one", []), ("two", TWO_RANKS)):
        done = subprocess.run(
            [sys.executable, *launcher, *MODULE, *command, "--out", tmp_path / name],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("Wrote") == 1
    one, two = _scalars(tmp_path / "one"), _scalars(tmp_path / "two")
    assert len(one["train/loss"]) == 18
    # In float32 a rounding flips an arg-max here and there: one process with two threads strays as far from one thread.
    np.testing.assert_allclose(two["train/loss"][:4], one["train/loss"][:4], rtol=1e-4)
    np.testing.assert_allclose(two["train/loss"], one["train/loss"], rtol=1e-3)
    np.testing.assert_allclose(two["train/gradient_norm"], one["train/gradient_norm"], rtol=3e-2)
    np.testing.assert_allclose(two["validation/at_10"], one["validation/at_10"], atol=0.02)


@pytest.mark.parametrize("cache_gb", [4, pytest.param(0, marks=pytest.mark.slow)])
def test_an_unreadable_image_is_named_by_any_process(tmp_path: Path, cache_gb: float) -> None:
    write_world(tmp_path / "pairs", WorldSet(pairs=16, height=32, width=128))
    broken = tmp_path / "pairs" / "ground" / "000003.png"
    broken.write_bytes(broken.read_bytes()[:300])
    command = ["train", "--data", f"pairs:{tmp_path / 'pairs'}", "--preset", "world-tiny", "--epochs", "2"]
    command += ["--set", "recipe.batch_size=8", "--set", f"machine.cache_gb={cache_gb}", "--out", str(tmp_path / "run")]
    line = [sys.executable, str(SUPPORT / "forked_ranks.py"), "2", *command]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = done.stderr.count(str(broken))
    assert named == 1 if cache_gb else named in (1, 2)


def _scalars(run: Path) -> dict[str, NDArray[np.float64]]:
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    tags = board.Tags()
    assert tags["images"] == ["validation/retrieval"]
    return {name: np.array([event.value for event in board.Scalars(name)]) for name in tags["scalars"]}
