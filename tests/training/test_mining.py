"""Hard negatives by the last descriptors: the official batches, and a run that resumes within an epoch."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Losses, Stop, Stopping, World
from official import FIGURES

from geodtr.runtime.errors import ConfigError
from geodtr.training.data.pair_set import PairSet
from geodtr.training.loop import resume, train
from geodtr.training.negatives.mining import LastDescriptors, mined_order, shuffled
from geodtr.training.presets.load import load_preset

SETTINGS = (
    "recipe.negatives=mined",
    "recipe.sharpness=0.5",
    "recipe.schedule=epoch",
    "recipe.epochs=3",
    "model.layers=1",
    "machine.save_minutes=1e-9",
)


def test_the_batches_are_the_official_ones() -> None:
    figures = np.load(FIGURES / "transgeo" / "training.npz")
    pairs, batch = 230, 8
    memory = LastDescriptors.empty(pairs, 4)
    ground, aerial = (rows.astype(np.float64) for rows in (memory.ground, memory.aerial))
    order = shuffled(pairs, batch, random.Random(7))
    assert order == figures["order_epoch0"].tolist()
    for epoch in (1, 2):
        for rows, name in ((ground, "ground"), (aerial, "aerial")):
            seen = figures[f"mining_{name}_features"][epoch - 1][order]
            rows[order] = seen / np.linalg.norm(seen, axis=1, keepdims=True)
        order = mined_order(ground, aerial, range(pairs), batch, random.Random(7 + epoch))
        assert order == figures[f"order_epoch{epoch}"].tolist()


def test_descriptors_are_kept_by_pair() -> None:
    memory = LastDescriptors.empty(5, 2)
    memory.store(torch.tensor([3, 1]), torch.eye(2), -torch.eye(2))
    assert memory.ground.tolist() == [[0, 0], [0, 1], [0, 0], [1, 0], [0, 0]]
    assert memory.aerial[3].tolist() == [-1, 0]


@pytest.mark.parametrize("tiles", [list(range(6)), [0, 0, 0, 0, 1, 1]])
def test_a_tiny_set_ends_and_no_batch_has_a_tile_twice_if_there_are_enough(tiles: list[int]) -> None:
    rows = np.eye(6, dtype=np.float32)
    order = mined_order(rows, rows, tiles, 6, random.Random(0))
    assert len(order) == 6
    if len(set(tiles)) == 6:
        assert sorted(order) == list(range(6))


@pytest.fixture(scope="module")
def few(world: World) -> PairSet:
    return world.train_set.first(56)  # half a batch is left over


@pytest.fixture(scope="module")
def whole(few: PairSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Path]:
    losses = Losses()
    config = load_preset("world-transgeo", SETTINGS)
    checkpoint = train(config, few, tmp_path_factory.mktemp("whole") / "run", listener=losses)
    return losses.losses, checkpoint


@pytest.mark.parametrize("after", [4, 6])
def test_a_stopped_run_goes_on_to_the_same_model(
    few: PairSet, whole: tuple[list[float], Path], tmp_path: Path, after: int
) -> None:
    losses, checkpoint = whole
    assert len(losses) == 3 * 3
    with pytest.raises(Stop):
        train(load_preset("world-transgeo", SETTINGS), few, tmp_path / "run", listener=Stopping(after))
    rest = Losses()
    again = resume(tmp_path / "run", few, listener=rest)
    assert rest.losses == losses[-len(rest.losses) :]
    assert again.read_bytes() == checkpoint.read_bytes()


def test_an_odd_batch_and_two_views_are_refused() -> None:
    for setting in ("recipe.batch_size=15", "recipe.views=2"):
        with pytest.raises(ConfigError, match=r'recipe\.negatives "mined"'):
            load_preset("world-transgeo", ["recipe.negatives=mined", setting])
