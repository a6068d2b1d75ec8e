"""The weights and the loss of HER are the official ones; SEH's differ where its abstract differs."""

import json
from dataclasses import replace
from math import inf

import numpy as np
import official
import pytest
import torch
from conftest import World
from official import FIGURES
from torch import Tensor

from geodtr.training.losses.exemplars import Exemplars, reweighted_triplet, weights
from geodtr.training.pair_images import PairImages
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import Trainer

HER = Exemplars()
VALUES = json.loads((FIGURES / "seh" / "values.json").read_text())


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    ground = official.seeded("seh-grd").standard_normal((24, 12))
    aerial = ground + 3 * official.seeded("seh-sat").standard_normal((24, 12))
    unit = (torch.from_numpy(each / np.linalg.norm(each, axis=1, keepdims=True)) for each in (ground, aerial))
    first, second = (each.requires_grad_() for each in unit)
    return first, second


def squared_distances(rows: tuple[Tensor, Tensor]) -> Tensor:
    return HER.scale**2 * torch.cdist(*rows).square().detach()


def test_hers_weights_are_the_official_ones(rows: tuple[Tensor, Tensor]) -> None:
    figures = np.load(FIGURES / "seh" / "weights.npz")
    np.testing.assert_allclose(rows[0].detach(), figures["grd"], atol=1e-12)
    weighted = weights(squared_distances(rows), HER)
    np.testing.assert_allclose(weighted, figures["weights"], atol=1e-6)


@pytest.mark.parametrize(("detached", "flow"), [(False, "through_weights"), (True, "weights_detached")])
def test_hers_loss_and_its_gradients_are_the_official_ones(
    rows: tuple[Tensor, Tensor], detached: bool, flow: str
) -> None:
    loss = reweighted_triplet(*rows, replace(HER, detached=detached))
    assert loss.item() == pytest.approx(VALUES["loss"], rel=1e-6)
    expected = VALUES[f"grad_norms_ground_aerial_{flow}"]
    for gradient, norm in zip(torch.autograd.grad(loss, rows), expected, strict=True):
        assert torch.linalg.vector_norm(gradient).item() == pytest.approx(norm, rel=1e-6)


def test_seh_removes_simple_triplets_and_weights_the_others_as_her_does(rows: tuple[Tensor, Tensor]) -> None:
    distance = squared_distances(rows)
    her, seh = weights(distance, HER), weights(distance, replace(HER, removes_simple=True))
    simple = seh == 0
    off_diagonal = ~torch.eye(24, dtype=torch.bool)
    assert simple[off_diagonal].double().mean().item() == pytest.approx(VALUES["fraction_low"])
    torch.testing.assert_close(seh[~simple], her[~simple])
    assert (her[simple & off_diagonal] == 0.1 / 24).all()


def test_both_directions_are_the_mean_of_one_and_of_the_views_exchanged(rows: tuple[Tensor, Tensor]) -> None:
    ground, aerial = rows
    both = reweighted_triplet(ground, aerial, replace(HER, both_directions=True))
    alone = (reweighted_triplet(ground, aerial, HER) + reweighted_triplet(aerial, ground, HER)) / 2
    torch.testing.assert_close(both, alone)


def test_pairs_of_one_tile_are_no_negatives(rows: tuple[Tensor, Tensor]) -> None:
    tiles = torch.arange(24) // 2
    weight = weights(squared_distances(rows), HER, tiles=tiles)
    assert (weight == 0).nonzero().tolist() == (tiles[:, None] == tiles).nonzero().tolist()


@pytest.mark.parametrize("loss", ["her", "seh"])
def test_a_run_trains_with_it(world: World, loss: str) -> None:
    config = load_preset("world-safa", [f"recipe.loss={loss}", "recipe.batch_size=4", "recipe.counterfactual_weight=0"])
    pairs = world.train_set.first(4)
    images = PairImages(pairs, {"ground": config.ground, "aerial": config.aerial}, cache_bytes=inf)
    trainer = Trainer(config, Ranks(), total=1)
    layout = trainer.model.get_parameter("ground.layout.w1")
    before = layout.detach().clone()
    (step,) = trainer.steps(images, [torch.arange(4)], 0)
    assert np.isfinite(step.loss)
    assert step.gradient > 0
    assert not torch.equal(before, layout)
