"""A setting that the training would not read is named, and no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Outcome, World
from torch import Tensor

from geodtr.training.pair_images import PairBatch
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets import preset_names, read_preset
from geodtr.training.presets.load import load_preset
from geodtr.training.presets.unread import unread
from geodtr.training.trainer import Trainer

PLAIN = ("recipe.layout=none", "recipe.semantic=none", "recipe.batch_size=6", "recipe.micro_batch=0")
CDE = (
    *("model.begin=4", "model.encoder=[8,16,16]", "model.widths=[8,8,16]", "model.residuals=2"),
    *("ground.height=24", "ground.width=48", "aerial.height=24", "aerial.width=48", "recipe.hardest_from=[]"),
)
LOSSES = {
    "GeoDTR": ("world-tiny", ("recipe.counterfactual_weight=1",)),
    "GeoDTR, without counterfactual": ("world-tiny", ("recipe.counterfactual_weight=0",)),
    "GeoDTR by SEH": ("world-tiny", ("recipe.loss=seh",)),
    "Sample4Geo": ("world-sample4geo", ()),
    "Sample4Geo by triplets": ("world-sample4geo", ("recipe.loss=triplet",)),
    "CDE": ("world-cde", CDE),
    "CDE, matching alone": ("world-cde", (*CDE, "recipe.loss=triplet")),
}
CHANGES = (
    *("recipe.real_label=0.5", "recipe.l1_weight=3", "recipe.matching_weight=7", "recipe.triplet_alpha=2"),
    *("recipe.hardest=0.1", "recipe.exemplar_scale=2", "recipe.exemplar_margin=0.9", "recipe.exemplar_both=true"),
    *("recipe.exemplar_detach=true", "recipe.label_smoothing=0.4", "recipe.counterfactual_beta=1"),
)


def learned(preset: str, settings: tuple[str, ...]) -> dict[str, Tensor]:
    """The networks after two steps in the middle of a run."""
    trainer = Trainer(load_preset(preset, (*PLAIN, *settings)), Ranks(), total=10)
    trainer.step = 6
    random = torch.Generator().manual_seed(0)
    ground, aerial = (
        torch.randint(0, 256, (6, how.height, how.width, 3), dtype=torch.uint8, generator=random)
        for how in (trainer.config.ground, trainer.config.aerial)
    )
    for _ in range(2):
        trainer.step += 1
        trainer.update([PairBatch(ground, aerial, torch.arange(6))], rate=1e-3)
    return trainer.networks.state_dict()


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_named_changes_no_weight_and_what_is_not_named_does(loss: str) -> None:
    preset, settings = LOSSES[loss]
    as_it_is = learned(preset, settings)
    for change in CHANGES:
        changed = learned(preset, (*settings, change))
        same = all(torch.equal(tensor, changed[name]) for name, tensor in as_it_is.items())
        config = load_preset(preset, (*PLAIN, *settings, change))
        assert same == bool(list(unread(config, [change]))), f"{loss}, {change}"


@pytest.mark.parametrize("name", preset_names())
def test_what_a_preset_states_is_read(name: str) -> None:
    own = [f"recipe.{field}={value}" for field, value in read_preset(name)["recipe"].items()]
    assert list(unread(load_preset(name), own)) == []


def test_train_names_what_it_does_not_read(world: World, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    ignored, read = "recipe.label_smoothing=0.2", "recipe.triplet_alpha=5"
    settings = ("--set", ignored, "--set", read, "--epochs", 1, "--limit", 32)
    done = cli("train", "--preset", "world-tiny", "--data", world.train_set.name, *settings, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"{ignored} has no effect: it needs recipe.loss=infonce." in done.err
    assert read not in done.err
