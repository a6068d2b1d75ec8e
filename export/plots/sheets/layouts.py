"""A picture of what a GeoDTR looks at: saliency and layout descriptors over panorama and tile, pair by pair.

The views stand side by side, so that one descriptor's maps can be compared between them, as in the paper's figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import nn

from geodtr.export.plots.sheets.sheet import FAINT, INK, PAPER, font, new_sheet, spread
from geodtr.runtime.errors import CheckpointError, DataError, ImageError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.manifest import FILE_NAME, read_manifest
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Images, Preprocessing
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import normalise
from geodtr.training.models.geodtr.layout import LayoutBranch

_WIDTH, _LEAST_HEIGHT, _MARGIN, _GAP, _LABEL, _LINE = 480, 110, 20, 4, 92, 20
_ACROSS = 2
"""Pairs side by side on the sheet."""


@dataclass(frozen=True, slots=True)
class View:
    """What the network was fed, at the size it is drawn, uint8 [h, w, 3], with its maps.

    `saliency` float32 [h, w], from 0 to 1 within the image; `layouts` float32 [K, h, w], from -1 to 1.
    """

    image: Images
    saliency: NDArray[np.float32]
    layouts: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ExplainedPair:
    """Both views of one pair."""

    caption: str
    views: dict[Branch, View]


def explain_pairs(checkpoint: Path, pair_set: PairSet, count: int) -> tuple[list[ExplainedPair], list[Skipped]]:
    """`count` pairs spread over the set, with what the checkpoint's network makes of them; and those left out as bad.

    Raises CheckpointError for a bundle, which keeps no weights that could be asked, and for a network that has no
    layout descriptors; DataError when no pair is left.
    """
    if (checkpoint / FILE_NAME).is_file():
        origin = read_manifest(checkpoint).source.origin
        raise CheckpointError(
            f"{checkpoint} is a bundle: its engines give descriptors and nothing else. Name the checkpoint that it was "
            f"made from ({origin}): geodtr-export visualize CKPT"
        )
    model = load_checkpoint(checkpoint).model
    explained, bad = list[ExplainedPair](), list[Skipped]()
    for row in spread(len(pair_set), count):
        pair = pair_set.pairs[row]
        try:
            views = {
                branch: _explain(model.branch(branch), path, model.specs[branch].preprocessing)
                for branch, path in zip(BRANCHES, (pair.ground, pair.aerial), strict=True)
            }
        except ImageError as error:
            bad.append(Skipped(pair.ground, str(error)))
            continue
        polar = ", polar-transformed" if model.specs["aerial"].preprocessing.polar else ""
        explained.append(ExplainedPair(f"{pair.ground.name}, and its tile {pair.aerial.name}{polar}", views))
    if not explained:
        raise DataError(f"None of the chosen pairs of {pair_set.name} can be drawn, the first because {bad[0].reason}")
    return explained, bad


def _explain(network: nn.Module, path: Path, how: Preprocessing) -> View:
    if not isinstance(network, LayoutBranch):
        raise CheckpointError("This model has no layout descriptors; GeoDTR, GeoDTR+ and SAFA have.")
    pixels = load_image(path, how)
    height = _drawn_height(how)
    width = round(height * how.width / how.height)
    with torch.inference_mode():
        explanation = network.explain(normalise(torch.tensor(pixels)[None], how.mean, how.std))
        maps = torch.cat([explanation.saliency[:, None], explanation.layouts], dim=1)
        drawn = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)[0].numpy()
    image = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    low, high = float(drawn[0].min()), float(drawn[0].max())
    return View(image, (drawn[0] - low) / max(high - low, 1e-12), drawn[1:])


def _drawn_height(how: Preprocessing) -> int:
    """A wide view is `_WIDTH` pixels wide; one that is not keeps a height at which it can be made out."""
    return max(_LEAST_HEIGHT, round(_WIDTH * how.height / how.width)) if how.width > how.height else _LEAST_HEIGHT


def draw_layouts(pairs: Sequence[ExplainedPair], title: str) -> Image.Image:
    """The sheet as an RGB picture: a block a pair, in it a line for the images, for saliency and for each descriptor.

    One descriptor is drawn to one scale over the whole sheet, which stands beside it: they differ a lot in size.
    """
    descriptors = len(pairs[0].views["ground"].layouts)
    scales = [
        max(float(np.abs(view.layouts[k]).max()) for pair in pairs for view in pair.views.values())
        for k in range(descriptors)
    ]
    blocks = [_draw_block(pair, scales) for pair in pairs]
    width, height = blocks[0].size
    across = min(_ACROSS, len(blocks))
    down = -(-len(blocks) // across)
    head = 3 * _LINE
    size = (_MARGIN + across * (width + _MARGIN), head + _MARGIN + down * (height + _MARGIN))
    sheet, draw = new_sheet(*size, _MARGIN, title)
    legend = (
        "saliency: strongest channel, dark to bright within each image.   "
        "P1, P2, ...: layout descriptors, the weight of each position: blue negative, red positive."
    )
    draw.text((_MARGIN, _MARGIN + 24), legend, FAINT, font(12))
    for index, block in enumerate(blocks):
        row, column = divmod(index, across)
        sheet.paste(block, (_MARGIN + column * (width + _MARGIN), head + _MARGIN + row * (height + _MARGIN)))
    return sheet


def _draw_block(pair: ExplainedPair, scales: Sequence[float]) -> Image.Image:
    views = [pair.views[branch] for branch in BRANCHES]
    height = max(view.image.shape[0] for view in views)
    lines = [("image", [view.image for view in views])]
    lines.append(("saliency", [_saliency(view) for view in views]))
    for k, scale in enumerate(scales):
        lines.append((f"P{k + 1}\n±{scale:.2g}", [_layout(view, k, scale) for view in views]))
    width = _LABEL + sum(view.image.shape[1] + _GAP for view in views)
    block = Image.new("RGB", (width, _LINE + len(lines) * (height + _GAP)), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((_LABEL, 0), pair.caption, INK, font(13))
    for index, (label, images) in enumerate(lines):
        top, left = _LINE + index * (height + _GAP), _LABEL
        draw.multiline_text((0, top + height // 2 - 8 * (1 + label.count("\n"))), label, INK, font(13))
        for image in images:
            block.paste(Image.fromarray(image), (left, top + (height - image.shape[0]) // 2))
            left += image.shape[1] + _GAP
    return block


def _saliency(view: View) -> Images:
    colour = colormaps["inferno"](view.saliency)[..., :3]
    return _blend(view.image, colour, np.full(view.saliency.shape, 0.6))


def _layout(view: View, descriptor: int, scale: float) -> Images:
    strength = view.layouts[descriptor] / max(scale, 1e-12)
    colour = colormaps["RdBu_r"](0.5 + 0.5 * np.sign(strength) * 0.8)[..., :3]
    return _blend(view.image, colour, 0.8 * np.abs(strength))


def _blend(image: Images, colour: NDArray[np.float64], share: NDArray[np.floating]) -> Images:
    """`colour` [h, w, 3] in 0..1 over the image, by its `share` [h, w].

    The image is put down in pale grey: its own colours, or its darkest parts, would be taken for the map's.
    """
    grey = 110 + 0.5 * np.asarray(Image.fromarray(image).convert("L"), np.float64)[..., None]
    weight = np.asarray(share, np.float64)[..., None]
    return np.asarray((1 - weight) * grey + weight * 255 * colour, np.uint8)
