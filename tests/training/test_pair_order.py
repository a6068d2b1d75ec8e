"""A run with hard negatives: its batches, its file of neighbours, and that it resumes exactly."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Losses, Stop, Stopping, World

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.loop import resume, train
from geodtr.training.presets.load import load_preset

SETTINGS = (
    "recipe.negatives=similar",
    "recipe.epochs=4",
    "recipe.compare_every=2",
    "recipe.neighbours=12",
    "recipe.selected_neighbours=8",
)


@pytest.fixture(scope="module")
def few(world: World) -> PairSet:
    return world.train_set.first(56)  # half a batch is left over


@pytest.fixture(scope="module")
def whole(few: PairSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Path]:
    losses = Losses()
    checkpoint = train(
        load_preset("world-sample4geo", SETTINGS), few, tmp_path_factory.mktemp("whole") / "run", listener=losses
    )
    return losses.losses, checkpoint


def test_lists_are_made_of_descriptors_and_every_epoch_has_as_many_steps(whole: tuple[list[float], Path]) -> None:
    losses, checkpoint = whole
    assert len(losses) == 4 * 3
    with np.load(checkpoint.with_name("neighbours.npz"), allow_pickle=False) as arrays:
        assert int(arrays["epochs"]) == 2
        assert arrays["neighbours"].shape == (56, 12)
        assert (arrays["neighbours"] != np.arange(56)[:, None]).all()


@pytest.mark.parametrize("after", [2, 6, 8, 9])
def test_a_crashed_run_goes_on_to_the_same_model(
    few: PairSet, whole: tuple[list[float], Path], tmp_path: Path, after: int
) -> None:
    settings = (*SETTINGS, "machine.save_minutes=1e-9") if after == 8 else SETTINGS
    with pytest.raises(Stop):
        train(load_preset("world-sample4geo", settings), few, tmp_path / "run", listener=Stopping(after))
    checkpoint = resume(tmp_path / "run", few)
    assert checkpoint.read_bytes() == whole[1].read_bytes()


@pytest.mark.parametrize("damage", ["missing", "noise"])
def test_lost_lists_are_reported(few: PairSet, tmp_path: Path, damage: str) -> None:
    settings = (*SETTINGS, "machine.save_minutes=1e-9")
    with pytest.raises(Stop):
        train(load_preset("world-sample4geo", settings), few, tmp_path / "run", listener=Stopping(8))
    file = tmp_path / "run" / "neighbours.npz"
    file.unlink()
    if damage == "noise":
        file.write_bytes(b"noise")
    with pytest.raises(CheckpointError, match=r"neighbours\.npz"):
        resume(tmp_path / "run", few)


def test_neighbours_on_the_map_need_positions(few: PairSet, tmp_path: Path) -> None:
    nowhere = PairSet(few.name, tuple(Pair(pair.ground, pair.aerial) for pair in few.pairs))
    with pytest.raises(ConfigError, match="not every pair"):
        train(load_preset("world-sample4geo", ["recipe.negatives=nearby"]), nowhere, tmp_path / "run")


def test_only_a_model_with_a_temperature_trains_with_infonce() -> None:
    with pytest.raises(ConfigError, match="sample4geo"):
        load_preset("world-tiny", ["recipe.loss=infonce"])
