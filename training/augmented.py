"""The images of one step: what is seen of each pair, augmented and normalised.

Every draw belongs to the seed and the step, but for the views of panoramas, which belong to the pair and the epoch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geodtr.runtime.images.preprocess import parts
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.augment.layout_simulation import (
    LayoutChange,
    change_layout,
    draw_heading_errors,
    draw_layout,
    draw_second_layout,
)
from geodtr.training.augment.photometric import SemanticChange, draw_semantic
from geodtr.training.augment.sample4geo import Sample4GeoChange, draw_sample4geo
from geodtr.training.augment.views import cut_views, whole_views
from geodtr.training.config import Recipe, TrainConfig
from geodtr.training.models.embedder import normalise
from geodtr.training.pair_images import PairBatch
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.seeding import Purpose, generator


def augmented(
    config: TrainConfig,
    batch: Sequence[PairBatch],
    step: int,
    ranks: Ranks,
    of_each: Callable[[Callable[[Branch], Tensor]], dict[Branch, Tensor]],
    memory_format: torch.memory_format,
) -> list[dict[Branch, Tensor]]:
    """Normalised images [views * b, 3, H, W] of each micro-batch: first views of its pairs, then second ones.

    Both branches get the same layout change, except for the heading error, and each its own photometric change. With
    `recipe.consistency`, the ground images are the cut views, then the full panoramas.
    """
    recipe = config.recipe
    size, share = config.micro_batch, ranks.share(config.micro_batch)
    layout = draw_layout(recipe.layout, recipe.batch_size, generator(recipe.seed, Purpose.LAYOUT, step))
    heading_generator = generator(recipe.seed, Purpose.HEADINGS, step)
    errors = draw_heading_errors(recipe.heading_error, recipe.batch_size, heading_generator)
    layouts = [layout]
    if recipe.views == 2:
        second = generator(recipe.seed, Purpose.SECOND_LAYOUT, step)
        layouts.append(layout.followed_by(draw_second_layout(recipe.layout, recipe.batch_size, second)))
    random = generator(recipe.seed, Purpose.SEMANTICS, step)
    photometric = [{branch: _draw_photometric(recipe, branch, random) for branch in BRANCHES} for _ in layouts]
    of_full_turn = _draw_photometric(recipe, "ground", random)
    images = []
    for index, part in enumerate(batch):
        rows = slice(index * size + share.start, index * size + share.stop)

        def prepare(branch: Branch, part: PairBatch = part, rows: slice = rows) -> Tensor:
            how = config.ground if branch == "ground" else config.aerial
            pixels = (part.ground if branch == "ground" else part.aerial).to(ranks.device, non_blocking=True)
            drawn = part.views if branch == "ground" else None
            views = []
            for layout_change, photometric_change in zip(layouts, photometric, strict=True):
                semantic = photometric_change[branch].rows(rows)
                if drawn is not None:
                    turned = layout_change.rows(rows).turned(drawn.turn)
                    # Photometric change last: it is of what is seen, and is vertical or by the pixel.
                    views.append(semantic.apply(_seen(config, part, pixels, turned)))
                else:
                    turned = (layout_change.turned(errors) if branch == "ground" else layout_change).rows(rows)
                    # Photometric change first, as in the release: the blur is vertical in the image as it was taken.
                    changed = [change_layout(semantic.apply(each), turned, branch, how) for each in parts(pixels, how)]
                    views.append(_joined(changed, how))
            if drawn is not None and recipe.consistency:
                whole = whole_views(pixels, layout.rows(rows).turned(drawn.turn_of_all), how.width)
                views.append(of_full_turn.rows(rows).apply(whole))
            normalised = normalise(torch.cat(views), how.mean, how.std)
            # Explicit in both cases: a view of pixels [B, H, W, 3] is already channels-last.
            return normalised.contiguous(memory_format=memory_format)

        images.append(of_each(prepare))
    return images


def _draw_photometric(recipe: Recipe, branch: Branch, random: torch.Generator) -> SemanticChange | Sample4GeoChange:
    """A change of pixels for each pair of a batch."""
    if recipe.semantic == "sample4geo":
        return draw_sample4geo(branch, recipe.batch_size, random)
    return draw_semantic(recipe.semantic, recipe.batch_size, random)


def seen(config: TrainConfig, batch: PairBatch) -> Tensor:
    """The ground pixels of a batch as the network takes them, uint8 [B, H, W, 3], without augmentation."""
    if batch.views is None:
        return batch.ground
    turn = batch.views.turn
    return _seen(config, batch, batch.ground, LayoutChange(turn, torch.zeros_like(turn, dtype=torch.bool)))


def _seen(config: TrainConfig, batch: PairBatch, panoramas: Tensor, change: LayoutChange) -> Tensor:
    assert batch.views is not None
    return cut_views(panoramas, change, batch.views.field, config.recipe.fields, config.ground.width)


def _joined(changed: Sequence[Tensor], how: Preprocessing) -> Tensor:
    """An image and its overview, if it has one, as one input."""
    first, *more = changed
    if not more:
        return first
    both = torch.zeros((len(first), *how.shape), dtype=first.dtype, device=first.device)
    for place, each in zip(parts(both, how), changed, strict=True):
        place.copy_(each)
    return both
