"""How far drawn tiles are from the real ones of held-out pairs: the validation of a network that draws."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geodtr.runtime.errors import DataError, ImageError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Images
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.data.views import load_query
from geodtr.training.models.embedder import exact_float32, normalise
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1

_AHEAD, _SHOWN = 64, 6


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """Mean absolute difference of pixels from -1 to 1, over pairs.

    Attributes
    ----------
    l1
        Of a drawn tile to the pair's own tile.
    l1_of_others
        Of a drawn tile to the tile before it, where that is another. A network that does not look at the panorama has
        as much.
    sheet
        The first real tiles over those that are drawn of their panoramas, uint8 [2S, N * S, 3].
    """

    l1: float
    l1_of_others: float
    sheet: Images


def measure_drawing(
    model: FusionGanStage1, pair_set: PairSet, on_skip: Callable[[Skipped], None], track: Track = untracked
) -> Drawing:
    """Draw the tile of each panorama; `on_skip` is called for each image that cannot be read, and its pair left out.

    Sets the model to evaluation mode. Raises DataError when no two tiles can be read.
    """
    ground, aerial = (model.specs[branch].preprocessing for branch in ("ground", "aerial"))
    device = next(model.parameters()).device

    def load(row: int) -> tuple[Images, Images] | Skipped:
        pair = pair_set.pairs[row]
        path = pair.ground
        try:
            panorama = load_query(path, pair.view, ground)
            path = pair.aerial
            return panorama, load_image(path, aerial)
        except ImageError as error:
            return Skipped(path, str(error))

    def network_input(pixels: Images) -> Tensor:
        return torch.tensor(pixels[None], device=device)

    model.eval()
    tiles, own, others = list[tuple[Tensor, Tensor]](), list[float](), list[float]()
    before: tuple[Path, Tensor] | None = None
    rows = range(len(pair_set))
    with (
        closing(work_ahead(load, rows, threads=cpu_count(), ahead=_AHEAD)) as loaded,
        torch.inference_mode(),
        exact_float32(),
    ):
        for row, loading in track(loaded, "Drawing tiles", len(rows)):
            read, path = loading.result(), pair_set.pairs[row].aerial
            if isinstance(read, Skipped):
                on_skip(read)
                continue
            panorama, tile = map(network_input, read)
            real, drawn = (
                model.generator.values(each)
                for each in (
                    normalise(tile, aerial.mean, aerial.std),
                    model.generator(normalise(panorama, ground.mean, ground.std)),
                )
            )
            own.append((drawn - real).abs().mean().item())
            if before is not None and before[0] != path:
                others.append((drawn - before[1]).abs().mean().item())
            before = path, real
            if len(tiles) < _SHOWN:
                tiles.append((real, drawn))
    if not others:
        raise DataError(f"Fewer than two tiles of {pair_set.name} can be read: geodtr-export data check SPEC")
    sheet = torch.cat([torch.cat(row, dim=3) for row in zip(*tiles, strict=True)], dim=2)[0].permute(1, 2, 0)
    levels = (sheet.cpu() + 1).mul(127.5).round().clamp(0, 255).byte().numpy()
    return Drawing(float(np.mean(own)), float(np.mean(others)), levels)
