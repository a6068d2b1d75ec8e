"""How far drawn tiles are from the real ones of held-out pairs: the validation of a network that draws."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from os import cpu_count

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
    """Mean absolute difference of pixels from -1 to 1.

    Attributes
    ----------
    l1
        Of a drawn tile to the pair's own tile.
    l1_of_others
        Of a drawn tile to the tile of the pair before it. A network that does not look at the panorama has as much.
    sheet
        The first real tiles over those that are drawn of their panoramas, uint8 [2S, N * S, 3].
    """

    l1: float
    l1_of_others: float
    sheet: Images


def measure_drawing(
    model: FusionGanStage1, pair_set: PairSet, on_skip: Callable[[Skipped], None], track: Track = untracked
) -> Drawing:
    """Draw the tile of each panorama. Sets the model to evaluation mode. Raises DataError when no pair can be read."""
    ground, aerial = (model.specs[branch].preprocessing for branch in ("ground", "aerial"))
    device = next(model.parameters()).device

    def load(row: int) -> tuple[Images, Images]:
        pair = pair_set.pairs[row]
        return load_query(pair.ground, pair.view, ground), load_image(pair.aerial, aerial)

    def network_input(pixels: Images) -> Tensor:
        return torch.tensor(pixels[None], device=device)

    model.eval()
    tiles, own, others = list[tuple[Tensor, Tensor]](), list[float](), list[float]()
    before: Tensor | None = None
    rows = range(len(pair_set))
    with (
        closing(work_ahead(load, rows, threads=cpu_count(), ahead=_AHEAD)) as loaded,
        torch.inference_mode(),
        exact_float32(),
    ):
        for row, loading in track(loaded, "Drawing tiles", len(rows)):
            try:
                panorama, tile = map(network_input, loading.result())
            except ImageError as error:
                on_skip(Skipped(pair_set.pairs[row].ground, str(error)))
                continue
            real, drawn = (
                model.generator.values(each)
                for each in (
                    normalise(tile, aerial.mean, aerial.std),
                    model.generator(normalise(panorama, ground.mean, ground.std)),
                )
            )
            own.append((drawn - real).abs().mean().item())
            if before is not None:
                others.append((drawn - before).abs().mean().item())
            before = real
            if len(tiles) < _SHOWN:
                tiles.append((real, drawn))
    if not others:
        raise DataError(f"Fewer than two pairs of {pair_set.name} can be read: geodtr-export data check SPEC")
    sheet = torch.cat([torch.cat(row, dim=3) for row in zip(*tiles, strict=True)], dim=2)[0].permute(1, 2, 0)
    levels = (sheet.cpu() + 1).mul(127.5).round().clamp(0, 255).byte().numpy()
    return Drawing(float(np.mean(own)), float(np.mean(others)), levels)
