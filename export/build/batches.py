"""Check whether a row depends on its batch: on the other images, which is always a fault, or on the size, by rounding.

The same rule holds for new engines and for engines that parity judges. It needs no other model: an engine must compute
the same row in every batch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodtr.export.cosines import cosines, finite_rows
from geodtr.export.graph.checks import BATCHES
from geodtr.runtime.embed.pipeline import BATCH_SIZE
from geodtr.runtime.names import QUANTISED, Branch, Precision
from geodtr.runtime.spec import Descriptors, Embedder, Images
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import load_first

SAME_ROW = 0.9999
"""Kernels for other batch sizes add in another order, which costs a few 1e-7; a mixed-up row costs far more."""
LEAST_DISCRETE = 0.98
"""Of a row whose arg-max fell the other way: a rounding decides between two equal channels, and neither is wrong."""
SAME_COMPANY = 0.99999
"""Between two batches of one size the kernels are the same: only a row that reads its neighbours can change."""
_FROM_ANOTHER = 0.5
"""From this share of a row's change on that points at one other image's row, the row counts as mixed up."""
_NEARER = 1e-5
_COUNT = max(BATCHES)


@dataclass(frozen=True, slots=True)
class BatchInvariance:
    """Rows of one branch's first `images`, alone and in company.

    `smallest_cosine`: between a row computed alone and the same image's row in `batches` of several sizes, in another
    order, and in the run that recall was measured by. `differing` counts the images of which a row has a cosine below
    0.9999, `mixed_up` the rows that are nearer to another image's row or changed towards one. `company_cosine`: the
    smallest between rows of one image in one place of a batch of one size, beside other images. `discrete`: whether a
    rounding may decide an arg-max, or between two patches, otherwise in a batch of another size.
    """

    branch: Branch
    batches: tuple[int, ...]
    smallest_cosine: float
    company_cosine: float
    images: int
    differing: int
    mixed_up: int
    discrete: bool


def batch_invariance(
    embedder: Embedder, pair_set: PairSet, in_run: Descriptors, precision: Precision
) -> BatchInvariance:
    """Compare the set's first images alone and in company; `in_run` holds each image's row as the run computed it."""
    images = load_first(pair_set, _COUNT, embedder.spec)
    return compare_batches(embedder, images, precision, in_run[: len(images)], min(BATCH_SIZE, len(in_run)))


def compare_batches(
    embedder: Embedder, images: Images, precision: Precision, in_run: Descriptors | None = None, run_batch: int = 0
) -> BatchInvariance:
    """Embed `images`, at most seven, alone, in batches of 1, 2 and 7, in another order, and beside other images.

    `in_run`: rows of the same images from batches of `run_batch`.
    """
    # Two images in turn show a row's dependence as well as seven do.
    images = np.resize(images, (_COUNT, *images.shape[1:]))
    alone = np.concatenate([embedder.embed(image[None]) for image in images])
    whole = embedder.embed(images)
    compared = [(alone[:size], embedder.embed(images[:size])) for size in BATCHES if 1 < size < _COUNT]
    compared += [(alone, whole), (alone, embedder.embed(images[::-1])[::-1])]
    if in_run is not None:
        compared.append((alone[: len(in_run)], in_run))
    rows = [cosines(expected, got) for expected, got in compared]
    differs = np.zeros(_COUNT, bool)
    for cosine in rows:
        differs[: len(cosine)] |= ~(cosine >= SAME_ROW)
    return BatchInvariance(
        branch=embedder.spec.branch,
        batches=(*BATCHES, run_batch) if in_run is not None else BATCHES,
        smallest_cosine=float(np.concatenate(rows).min()),
        company_cosine=_beside_others(embedder, images, whole),
        images=_COUNT,
        differing=int(differs.sum()),
        mixed_up=sum(_mixed_up(got, alone, images) for _, got in compared),
        discrete=precision in QUANTISED or embedder.spec.chooses,
    )


def batch_fault(found: BatchInvariance) -> str | None:
    """What is wrong with rows compared so, in words; None where they do not depend on their batch.

    In a quantised engine, and in one that chooses patches, fewer than half of the images may have another row in a
    batch of another size, none of them far from its own. Written so that a NaN is a fault.
    """
    sizes = ", ".join(map(str, found.batches))
    if not found.company_cosine >= SAME_COMPANY:
        return (
            f"gives another row for another composition of the batch: cosine {found.company_cosine:.6f}, at least "
            f"{SAME_COMPANY} is right"
        )
    if found.mixed_up:
        return f"gives {found.mixed_up} rows in batches of {sizes} that are another image's or hold a share of one"
    if found.discrete:
        least, most = LEAST_DISCRETE, (found.images - 1) // 2
    else:
        least, most = SAME_ROW, 0
    if found.differing > most or not found.smallest_cosine >= least:
        return (
            f"gives {found.differing} of {found.images} images other rows in batches of {sizes} than alone, the "
            f"farthest with cosine {found.smallest_cosine:.6f}; right are at most {most}, and at least {least}"
        )
    return None


def _beside_others(embedder: Embedder, images: Images, whole: Descriptors) -> float:
    """The smallest cosine between a row of the batch `whole` and the same image's row, in the same place beside others.

    The bits of the places' numbers select the rows to keep, so that for each pair of places a batch keeps one and
    replaces the other.
    """
    places, results = np.arange(len(images)), list[NDArray[np.float64]]()
    for bit in range(int(places[-1]).bit_length()):
        for value in (0, 1):
            kept = (places >> bit) & 1 == value
            batch = np.where(kept[:, None, None, None], images, 255 - images)
            results.append(cosines(whole[kept], embedder.embed(batch)[kept]))
    return float(np.concatenate(results).min())


def _mixed_up(got: Descriptors, alone: Descriptors, images: Images) -> int:
    """How many rows are nearer to another image's row than to their own, or hold a share of another's.

    A flipped arg-max changes a row in a direction of its own; a row that leaks changes its neighbour towards itself.
    """
    # What is not finite is a fault already: its cosine counts as 0.
    got, alone = (np.where(finite_rows(rows)[:, None], rows, np.float32(0)) for rows in (got, alone))
    nearness = got.astype(np.float64) @ alone.T.astype(np.float64)
    same = np.array([[np.array_equal(one, other) for other in images] for one in images[: len(got)]])
    own = np.diagonal(nearness)
    others = np.where(same, -np.inf, nearness).max(axis=1)
    leaks = [not own[row] >= SAME_ROW and _leaked(each, row, alone, same[row]) for row, each in enumerate(got)]
    return int(np.count_nonzero((others > own + _NEARER) | np.array(leaks)))


def _leaked(row: Descriptors, place: int, alone: Descriptors, same: NDArray[np.bool_]) -> bool:
    """Whether most of what changed in the row of the image in `place` is a share of one other image's row."""
    own = alone[place].astype(np.float64)
    changed = row - (row @ own) * own
    others = alone[~same] - np.outer(alone[~same] @ own, own)
    # Similar rows, as for noise, differ by little more than rounding: their difference has no direction.
    others = others[np.linalg.norm(others, axis=1) > np.sqrt(1 - SAME_ROW**2)]
    squares = np.sum(others**2, axis=1) * (changed @ changed)
    # The square of a cosine is the share of the change that it explains.
    return bool(np.any((others @ changed > 0) & ((others @ changed) ** 2 > _FROM_ANOTHER * squares)))
