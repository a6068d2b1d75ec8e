"""A changed pair stays a pair: both views are turned and mirrored together, exactly, and in the same sense."""

import numpy as np
import pytest
import torch
from conftest import Trained
from hypothesis import given, settings
from hypothesis import strategies as st

from geodtr.runtime.names import BRANCHES
from geodtr.runtime.pipeline import load_batches
from geodtr.runtime.polar import polar_transform
from geodtr.runtime.recall import rank, recall
from geodtr.training.checkpoint import load_checkpoint
from geodtr.training.layout_simulation import (
    LayoutChange,
    change_square,
    change_unrolled,
    random_quarter_turns,
    random_turns,
)
from geodtr.training.models.embedder import embedders


def _change(turn: float, mirrored: bool) -> LayoutChange:
    return LayoutChange(torch.tensor([turn]), torch.tensor([mirrored]))


@settings(max_examples=60, deadline=None)
@given(width=st.integers(4, 700), turn=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_turn_is_undone_by_its_reverse_at_any_width(width: int, turn: float, seed: int) -> None:
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, 2, width, 3), np.uint8))
    there = change_unrolled(images, _change(turn, False))
    shift = round(float(torch.round(torch.tensor(turn) * width)))
    assert torch.equal(change_unrolled(there, _change((width - shift) / width, False)), images)


@settings(max_examples=30, deadline=None)
@given(width=st.integers(4, 700))
def test_a_mirror_is_its_own_inverse_and_keeps_south_in_place(width: int) -> None:
    images = torch.arange(width).view(1, 1, width, 1)
    once = change_unrolled(images, _change(0, True))
    assert once[0, 0, 0, 0] == 0
    assert torch.equal(change_unrolled(once, _change(0, True)), images)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_square_tile_changes_as_its_polar_image_does(mirrored: bool, quarters: int) -> None:
    """The polar image of the changed tile is the changed polar image: both conventions mean one and the same world."""
    yy, xx = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-1, 1, 200), indexing="ij")
    tile = np.stack([np.sin(3 * xx + yy), np.cos(2 * yy - xx), np.sin(4 * xx * yy)], axis=2)
    tile = ((tile + 1) * 127).astype(np.uint8)
    change = _change(quarters / 4, mirrored)
    changed_tile = change_square(torch.from_numpy(tile)[None], change)[0].numpy()
    changed_polar = change_unrolled(torch.from_numpy(polar_transform(tile, 32, 128))[None], change)[0].numpy()
    difference = np.abs(polar_transform(changed_tile, 32, 128)[4:].astype(int) - changed_polar[4:])
    # Pixel centres lie half a pixel off the transform's centre: the two agree up to a pixel's step in a smooth image.
    assert difference.mean() < 2
    untouched = np.abs(polar_transform(tile, 32, 128)[4:].astype(int) - changed_polar[4:]).mean()
    assert untouched > 10 or (quarters == 0 and not mirrored)


@pytest.mark.parametrize("draw", [random_quarter_turns, random_turns])
def test_changes_are_drawn_by_the_generator_alone(draw: object) -> None:
    assert callable(draw)
    first, again = (draw(64, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.turn, again.turn)
    assert torch.equal(first.mirrored, again.mirrored)
    assert 0 < first.mirrored.float().mean() < 1


def test_the_model_uses_the_layout_turning_one_view_alone_destroys_recall(trained: Trained) -> None:
    pair = embedders(load_checkpoint(trained.checkpoint).model)
    images = {
        branch: torch.from_numpy(
            np.concatenate(list(load_batches(trained.test_set.paths(branch), pair[branch].spec.preprocessing)))
        )
        for branch in BRANCHES
    }
    count = len(trained.test_set)

    def at_1(ground: LayoutChange, aerial: LayoutChange) -> float:
        queries = pair.ground.embed(change_unrolled(images["ground"], ground).numpy())
        references = pair.aerial.embed(change_unrolled(images["aerial"], aerial).numpy())
        return recall(rank(queries, references)).at_1

    def everyone(turn: float, mirrored: bool) -> LayoutChange:
        return LayoutChange(torch.full((count,), turn), torch.full((count,), mirrored))

    as_it_is, quarter, mirror = everyone(0, False), everyone(0.25, False), everyone(0, True)
    usual = at_1(as_it_is, as_it_is)
    assert usual > 0.3
    assert at_1(quarter, as_it_is) < 0.1 * usual
    assert at_1(mirror, as_it_is) < 0.2 * usual
    assert at_1(quarter, quarter) > 0.8 * usual
    assert at_1(mirror, mirror) > 0.8 * usual
