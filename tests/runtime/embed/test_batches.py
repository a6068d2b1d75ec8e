"""A row never depends on the other images of its batch; in a quantised engine, rounding may depend on its size."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import Trained

from geodtr.export.build.batches import batch_fault, compare_batches
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.names import Precision
from geodtr.runtime.spec import BranchSpec, Descriptors, Embedder, Images


@pytest.fixture(params=["noise", "panoramas"])
def images(request: pytest.FixtureRequest, trained: Trained) -> Images:
    how = trained.onnx.manifest.ground.spec.preprocessing
    if request.param == "noise":
        return np.random.default_rng(0).integers(0, 256, (7, how.height, how.width, 3), np.uint8)
    return next(load_batches(trained.test_set.paths("ground")[:7], how, 7))


Rows = Callable[[Images, Descriptors], Descriptors]


class Changed:
    """An engine with rows altered by `change`."""

    def __init__(self, of: Embedder, change: Rows) -> None:
        self._of, self._change = of, change

    @property
    def spec(self) -> BranchSpec:
        return self._of.spec

    def embed(self, images: Images) -> Descriptors:
        return self._change(images, self._of.embed(images).copy())


def swapped(_: Images, rows: Descriptors) -> Descriptors:
    """Swap the last two rows of a batch."""
    rows[-2:] = rows[-2:][::-1].copy()
    return rows


def averaged(_: Images, rows: Descriptors) -> Descriptors:
    """Mix the first row of a batch with the second."""
    if len(rows) > 1:
        rows[0] += 0.5 * rows[1]
        rows[0] /= np.linalg.norm(rows[0])
    return rows


def leaked_at_two(_: Images, rows: Descriptors) -> Descriptors:
    """Add a tenth of the first row to the second, in a batch of two only."""
    if len(rows) == 2:
        rows[1] += 0.1 * rows[0]
        rows[1] /= np.linalg.norm(rows[1])
    return rows


def wrong_at_seven(_: Images, rows: Descriptors) -> Descriptors:
    """Change all rows of a batch of seven slightly."""
    if len(rows) == 7:
        rows += 0.02 * np.roll(np.eye(rows.shape[1], dtype=np.float32)[0], 3)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


class Stale:
    """Return the last row of the previous batch as the last row of a batch."""

    def __init__(self) -> None:
        self._before: Descriptors | None = None

    def __call__(self, _: Images, rows: Descriptors) -> Descriptors:
        last = rows[-1].copy()
        if self._before is not None and len(rows) > 1:
            rows[-1] = self._before
        self._before = last
        return rows


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("fault", [swapped, averaged, leaked_at_two, wrong_at_seven, Stale()])
def test_rows_that_depend_on_their_batch_are_detected(
    trained: Trained, images: Images, precision: Precision, fault: Rows
) -> None:
    engine = trained.bundles[precision].embedder("ground")
    assert batch_fault(compare_batches(engine, images, precision)) is None
    assert batch_fault(compare_batches(Changed(engine, fault), images, precision)) is not None


class Flipped:
    """Flip the arg-max of `of_images` in batches, which rotates their rows by 1.8 degrees."""

    def __init__(self, of_images: Images) -> None:
        self._of = of_images

    def __call__(self, images: Images, rows: Descriptors) -> Descriptors:
        for image, row in zip(images, rows, strict=True):
            if len(rows) > 1 and any(np.array_equal(image, other) for other in self._of):
                aside = np.random.default_rng(0).normal(size=row.shape)
                aside -= (aside @ row) * row
                row[:] = np.cos(np.pi / 100) * row + np.sin(np.pi / 100) * aside / np.linalg.norm(aside)
        return rows


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0), ("fp16", 0), ("int8", 3)])
def test_few_images_of_a_quantised_engine_may_change_with_the_batch_size(
    trained: Trained, images: Images, precision: Precision, most: int
) -> None:
    engine = trained.bundles[precision].embedder("ground")
    invariance = compare_batches(Changed(engine, Flipped(images[:most])), images, precision)
    assert batch_fault(invariance) is None
    assert invariance.differing == most
    more = compare_batches(Changed(engine, Flipped(images[: most + 1])), images, precision)
    assert f"{most + 1} of 7 images" in str(batch_fault(more))
