"""Semantic augmentation changes every image of a batch as torchvision changes that image alone."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from geodtr.training.augment.photometric import Semantic, SemanticChange, change_semantic, draw_semantic

BATCHES = st.tuples(st.integers(1, 9), st.integers(3, 40), st.integers(1, 60), st.integers(0, 2**31))
STRENGTHS: tuple[Semantic, ...] = ("strong", "weak", "none")


def _images(count: int, height: int, width: int, seed: int) -> Tensor:
    return torch.randint(
        256, (count, height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def _drawn(strength: Semantic, images: Tensor, seed: int = 0) -> SemanticChange:
    return draw_semantic(strength, len(images), torch.Generator().manual_seed(seed))


def _nothing(images: Tensor) -> SemanticChange:
    return _drawn("none", images)


def _levels_apart(first: Tensor, second: Tensor) -> Tensor:
    return (first.int() - second.int()).abs()


def _one_by_one(images: Tensor, adjust: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Torchvision's word for it: `adjust` takes one image [3, H, W] and its number."""
    return torch.stack([adjust(image.movedim(2, 0), row).movedim(0, 2) for row, image in enumerate(images)])


# --- each part, image by image against torchvision on the same uint8 pixels ---


@pytest.mark.parametrize(
    ("column", "adjust"), [(0, tv.adjust_brightness), (1, tv.adjust_contrast), (2, tv.adjust_saturation)]
)
@settings(max_examples=40, deadline=None)
@given(batch=BATCHES)
def test_jitter_is_torchvisions_with_a_factor_for_every_image(
    column: int, adjust: Callable[[Tensor, float], Tensor], batch: tuple[int, int, int, int]
) -> None:
    images = _images(*batch)
    factors = torch.ones(len(images), 3)
    factors[:, column] = _drawn("strong", images).factors[:, column]
    changed = change_semantic(images, dataclasses.replace(_nothing(images), factors=factors))
    expected = _one_by_one(images, lambda image, row: adjust(image, float(factors[row, column])))
    assert _levels_apart(changed, expected).max() <= 1


@settings(max_examples=40, deadline=None)
@given(batch=BATCHES)
def test_only_the_selected_images_become_grey(batch: tuple[int, int, int, int]) -> None:
    images = _images(*batch)
    grey = torch.arange(len(images)) % 2 == 0
    changed = change_semantic(images, dataclasses.replace(_nothing(images), grey=grey))
    expected = _one_by_one(images[grey], lambda image, _: tv.rgb_to_grayscale(image, 3))
    assert _levels_apart(changed[grey], expected).max() <= 1
    assert torch.equal(changed[grey][..., 0], changed[grey][..., 2])
    assert torch.equal(changed[~grey], images[~grey])


@settings(max_examples=40, deadline=None)
@given(batch=BATCHES)
def test_the_chosen_images_keep_four_bits_and_the_others_all(batch: tuple[int, int, int, int]) -> None:
    images = _images(*batch)
    posterised = torch.arange(len(images)) % 2 == 0
    changed = change_semantic(images, dataclasses.replace(_nothing(images), posterised=posterised))
    assert torch.equal(changed[posterised], _one_by_one(images[posterised], lambda image, _: tv.posterize(image, 4)))
    assert torch.equal(changed[~posterised], images[~posterised])


@settings(max_examples=40, deadline=None)
@given(batch=BATCHES)
def test_the_blur_is_torchvisions_kernel_1_5_with_a_sigma_for_every_image(batch: tuple[int, int, int, int]) -> None:
    images = _images(*batch)
    sigma = _drawn("strong", images).sigma
    changed = change_semantic(images, dataclasses.replace(_nothing(images), sigma=sigma))
    expected = _one_by_one(images, lambda image, row: tv.gaussian_blur(image, [1, 5], [float(sigma[row])]))
    assert _levels_apart(changed, expected).max() <= 1


def test_the_blur_mixes_rows_and_not_columns() -> None:
    stripes = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    blurred = dataclasses.replace(_nothing(stripes), sigma=torch.tensor([3.0]))
    assert torch.equal(change_semantic(stripes, blurred), stripes)
    lying = stripes.transpose(1, 2)
    assert _levels_apart(change_semantic(lying, blurred), lying).min() > 50


# --- the whole ---


@pytest.mark.parametrize("strength", ["strong", "weak"])
@settings(max_examples=40, deadline=None)
@given(batch=BATCHES)
def test_the_whole_chain_is_torchvisions_in_each_images_own_order(
    strength: Semantic, batch: tuple[int, int, int, int]
) -> None:
    """On floats, where torchvision does not cut off fractions between the steps; posterised at whole levels."""
    images = _images(*batch)
    change = _drawn(strength, images, batch[3])

    def by_torchvision(image: Tensor, row: int) -> Tensor:
        adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
        level = image / 255
        for column in change.order[row].tolist():
            level = adjust[column](level, float(change.factors[row, column]))
        if change.grey[row]:
            level = tv.rgb_to_grayscale(level, 3)
        whole = (level * 255).round().to(torch.uint8)
        if change.posterised[row]:
            whole = tv.posterize(whole, 4)
        if change.sigma[row] > 0:
            whole = tv.gaussian_blur(whole, [1, 5], [float(change.sigma[row])])
        return whole

    changed = change_semantic(images, change)
    apart = _levels_apart(changed, _one_by_one(images, by_torchvision))
    assert apart[~change.posterised].numel() == 0 or apart[~change.posterised].max() <= 1
    # Posterised, one level of the jitter may decide over sixteen.
    assert apart.max() <= 17


@settings(max_examples=60, deadline=None)
@given(batch=BATCHES, data=st.data())
def test_a_batch_cut_in_two_gives_the_same_pixels_to_the_last_bit(
    batch: tuple[int, int, int, int], data: st.DataObject
) -> None:
    images = _images(*batch)
    cut = data.draw(st.integers(0, len(images)))
    change = _drawn("strong", images, batch[3])
    parts = [slice(0, cut), slice(cut, None)]
    apart = torch.cat([change_semantic(images[part], change.rows(part)) for part in parts])
    assert torch.equal(apart, change_semantic(images, change))


def test_an_image_is_untouched_by_its_neighbours() -> None:
    images = _images(24, 48, 192, 0)
    change = _drawn("strong", images)
    others = images.clone()
    others[1:] = 255 - others[1:]
    assert torch.equal(change_semantic(images, change)[0], change_semantic(others, change)[0])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_seed_gives_the_same_pixels_and_another_seed_others(strength: Semantic) -> None:
    images = _images(16, 12, 20, 0)
    before = images.clone()
    first, again, other = (change_semantic(images, _drawn(strength, images, seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (strength == "none")
    assert torch.equal(images, before), "the images given were written to"
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)


def test_none_gives_back_the_very_same_tensor() -> None:
    images = _images(4, 8, 8, 0)
    assert change_semantic(images, _drawn("none", images)) is images


@settings(max_examples=30, deadline=None)
@given(level=st.integers(0, 255), seed=st.integers(0, 2**31))
def test_black_stays_black_and_an_image_of_one_grey_stays_of_one_grey(level: int, seed: int) -> None:
    images = torch.full((6, 9, 7, 3), level, dtype=torch.uint8)
    changed = change_semantic(images, _drawn("strong", images, seed)).reshape(6, -1)
    assert torch.equal(changed.amin(dim=1), changed.amax(dim=1))
    assert level > 0 or not changed.any()


# --- the draws ---


@pytest.mark.parametrize(
    ("strength", "jitter", "grey", "posterised"), [("strong", 0.3, 0.2, 0.2), ("weak", 0.1, 0.1, 0)]
)
def test_draws_follow_the_paper(strength: Semantic, jitter: float, grey: float, posterised: float) -> None:
    change = draw_semantic(strength, 20_000, torch.Generator().manual_seed(0))
    assert change.factors.amin(dim=0).tolist() == pytest.approx([1 - jitter] * 3, abs=0.001)
    assert change.factors.amax(dim=0).tolist() == pytest.approx([1 + jitter] * 3, abs=0.001)
    assert float(change.grey.float().mean()) == pytest.approx(grey, abs=0.01)
    assert float(change.posterised.float().mean()) == pytest.approx(posterised, abs=0.01)
    assert len(torch.unique(change.order, dim=0)) == 6
    assert torch.equal(change.order.sort(dim=1).values[0], torch.arange(3))
    if strength == "strong":
        assert float(change.sigma.min()) == pytest.approx(0.1, abs=0.001)
        assert float(change.sigma.max()) == pytest.approx(5, abs=0.001)
        assert float(change.sigma.mean()) == pytest.approx(2.55, abs=0.05)
    else:
        assert not change.sigma.any()


def test_every_strength_leaves_the_generator_where_the_others_do() -> None:
    """So that two strengths are compared on the same batches and turns."""
    following = set()
    for strength in STRENGTHS:
        generator = torch.Generator().manual_seed(3)
        draw_semantic(strength, 10, generator)
        following.add(float(torch.rand(1, generator=generator)))
    assert len(following) == 1


def test_draws_are_moved_to_the_images_device() -> None:
    """The meta device computes nothing, yet refuses to mix devices as a GPU does."""
    images = _images(24, 48, 192, 0).to("meta")
    assert change_semantic(images, _drawn("strong", images)).is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_pixels_of_the_cpu() -> None:
    images = _images(24, 48, 192, 0)
    change = _drawn("strong", images)
    changed = change_semantic(images.cuda(), change)
    assert changed.is_cuda
    assert (_levels_apart(changed.cpu(), change_semantic(images, change)) > 1).float().mean() < 0.001
