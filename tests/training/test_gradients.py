"""A batch's gradient does not depend on its division into micro-batches; losses do not overflow in half precision."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geodtr.runtime.names import BRANCHES
from geodtr.training.config import TrainConfig
from geodtr.training.losses.contrastive import counterfactual, soft_margin_triplet
from geodtr.training.pair_images import PairBatch
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.parallel.grad_cache import Outputs, backward
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import Trainer


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8)).double()


def _loss(outputs: Outputs) -> Tensor:
    first, second = (nn.functional.normalize(rows, dim=1) for rows in outputs)
    return soft_margin_triplet(first, second)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_cached_descriptors_give_the_gradient_of_the_whole_graph(micro_batches: int) -> None:
    ground, aerial = torch.randn(2, 8, 3, 8, 8, dtype=torch.float64)

    def forward_with(network: nn.Module) -> Callable[[int], Outputs]:
        def forward(index: int) -> Outputs:
            size = 8 // micro_batches
            rows = slice(index * size, (index + 1) * size)
            return network(ground[rows]), network(aerial[rows])

        return forward

    whole, cached = _network(), _network()
    parts = [forward_with(whole)(index) for index in range(micro_batches)]
    expected = _loss(tuple(torch.cat(rows) for rows in zip(*parts, strict=True)))
    torch.autograd.backward(expected)
    loss = backward(cached, forward_with(cached), micro_batches, _loss)

    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    for (name, weight), other in zip(whole.named_parameters(), cached.parameters(), strict=True):
        torch.testing.assert_close(other.grad, weight.grad, rtol=1e-5, atol=1e-9, msg=name)
    # Running statistics have seen every micro-batch once, although it was computed several times.
    for (name, seen), again in zip(whole.named_buffers(), cached.buffers(), strict=True):
        torch.testing.assert_close(again, seen, msg=name)


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_step_has_finite_gradients_in_every_precision(precision: str) -> None:
    config = load_preset("world-tiny", [f"machine.precision={precision}", "model.dropout=0.1"])
    trainer = Trainer(config, Ranks(), total=10)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 128, 3), np.uint8)
    batch = PairBatch(torch.from_numpy(pixels[0]), torch.from_numpy(pixels[1]), torch.arange(16))
    # A gradient scaler begins too high on purpose: it leaves out steps until none of its gradients overflows.
    losses, gradients = zip(*(trainer.update([batch], rate=1e-3) for _ in range(8)), strict=True)
    assert np.isfinite(losses).all()
    finite = np.isfinite(gradients)
    assert finite.all() if precision != "fp16" else finite[-2:].all()
    assert min(np.array(gradients)[finite]) > 0
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


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


def test_pairs_of_one_tile_are_no_negatives_of_each_other() -> None:
    rows = nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    aerial = rows[[0, 0, 1, 2]]
    tiles = torch.tensor([5, 5, 7, 9])
    apart = soft_margin_triplet(rows, aerial, tiles=tiles)
    distance = 2 - 2 * rows @ aerial.T
    by_hand = [
        [
            nn.functional.softplus(10 * (distance[i, i] - between)).item()
            for i in range(4)
            for j in range(4)
            if tiles[i] != tiles[j]
            for between in ([distance[i, j]] if direction == 0 else [distance[j, i]])
        ]
        for direction in (0, 1)
    ]
    assert apart.item() == pytest.approx((np.mean(by_hand[0]) + np.mean(by_hand[1])) / 2, rel=1e-5)


@pytest.fixture
def cores() -> Iterator[Callable[[int], None]]:
    """Set the number of cores that PyTorch uses, for the length of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_two_views_of_a_pair_are_negatives_of_each_other(cores: Callable[[int], None]) -> None:
    cores(1)  # two threads add in another order
    config = load_preset("world-tiny", ["recipe.views=2", "recipe.counterfactual_weight=0", "model.dropout=0.0"])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 128, 3), np.uint8)
    batch = PairBatch(torch.from_numpy(pixels[0]), torch.from_numpy(pixels[1]), torch.arange(16))
    trainer = Trainer(config, Ranks(), total=10)
    trainer.step = 1
    (views,) = trainer._augment([batch])
    assert [len(views[branch]) for branch in BRANCHES] == [32, 32]
    first, second = views["aerial"][:16], views["aerial"][16:]
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    def uniform(shape: Sequence[int]) -> Tensor:
        return torch.rand((32, *shape))

    with torch.no_grad():
        ground, aerial = (trainer.model.training_outputs(branch, views[branch], uniform)[0] for branch in BRANCHES)
    expected = soft_margin_triplet(ground, aerial).item()
    again = Trainer(config, Ranks(), total=10)
    again.step = 1
    (loss,), _ = again.update([batch], rate=1e-3)
    assert loss == pytest.approx(expected, rel=1e-5)
    parts = PairBatch(batch.ground[:8], batch.aerial[:8], batch.tiles[:8])
    (loss,), gradient = Trainer(_cut(config), Ranks(), total=10).update([parts, parts], rate=1e-3)
    assert np.isfinite([loss, gradient]).all()


def _cut(config: TrainConfig) -> TrainConfig:
    return msgspec.structs.replace(config, recipe=msgspec.structs.replace(config.recipe, micro_batch=8))


def test_branches_in_threads_learn_the_same_as_in_sequence(cores: Callable[[int], None]) -> None:
    """Two cores are a thread for each branch, and one core computes both: the same sums in the same order."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 128, 3), np.uint8)
    batch = PairBatch(torch.from_numpy(pixels[0]), torch.from_numpy(pixels[1]), torch.arange(16))
    learned = []
    for count in (1, 2):
        cores(count)
        trainer = Trainer(load_preset("world-tiny", ["recipe.micro_batch=8"]), Ranks(), total=10)
        updates = [trainer.update([_part(batch, 0), _part(batch, 8)], rate=1e-3) for _ in range(3)]
        learned.append([(*losses, gradient) for losses, gradient in updates])
        assert torch.get_num_threads() == count
    np.testing.assert_allclose(learned[1], learned[0], rtol=1e-5)


def _part(batch: PairBatch, start: int) -> PairBatch:
    rows = slice(start, start + 8)
    return PairBatch(batch.ground[rows], batch.aerial[rows], batch.tiles[rows])


def test_branches_run_in_sequence_if_the_order_of_random_draws_matters(cores: Callable[[int], None]) -> None:
    cores(2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 128, 3), np.uint8)
    batch = PairBatch(torch.from_numpy(pixels[0]), torch.from_numpy(pixels[1]), torch.arange(16))
    config = load_preset("world-tiny", ["model.dropout=0.3"])
    losses = [Trainer(config, Ranks(), total=10).update([batch], rate=1e-3) for _ in range(4)]
    assert len(set(losses)) == 1
