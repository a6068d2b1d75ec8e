"""The polar transform inside the aerial graph: raw square tiles in, for targets whose processor has other work.

Equal to the runtime's function within one level of 255: sums are in float32 here.
"""

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.images.polar import sampled_points
from geodtr.runtime.spec import MAX_SIDE, BranchSpec, Preprocessing
from geodtr.training.models.embedder import FromPixels

_TRUNCATION_SLACK = 1e-3
"""Tolerance for float32 sums just below a whole number."""


class FromRawTiles(nn.Module):
    """uint8 [B, S, S, 3] -> unit descriptors [B, D]."""

    grid: Tensor

    def __init__(self, branch: nn.Module, preprocessing: Preprocessing, side: int) -> None:
        super().__init__()
        self.network = FromPixels(branch, preprocessing)
        row, column = sampled_points(side, preprocessing.height, preprocessing.width)
        # GridSample counts from -1, the middle of the first pixel, to 1, the middle of the last.
        points = np.stack([column, row], axis=-1) * 2 / (side - 1) - 1
        self.register_buffer("grid", torch.from_numpy(points[None].astype(np.float32)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        tiles = images.float().permute(0, 3, 1, 2)  # cast first, as in `normalise`
        # One grid serves all: the tiles' planes are sampled as one image of many channels.
        planes = tiles.flatten(0, 1)[None]
        polar = F.grid_sample(planes, self.grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        polar = polar.reshape(-1, 3, *polar.shape[2:])
        descriptors: Tensor = self.network((polar + _TRUNCATION_SLACK).floor().permute(0, 2, 3, 1))
        return descriptors


def raw_tile_spec(spec: BranchSpec, side: int) -> BranchSpec:
    """The spec of an aerial branch that polar-transforms its tiles itself.

    Raises ConfigError when the model has no polar transform or stretches its result, or `side` is out of range.
    """
    if not spec.preprocessing.polar:
        raise ConfigError("This model takes square tiles as they are: it has no polar transform to put into its graph.")
    if spec.preprocessing.stretch:
        raise ConfigError("This model's tiles are stretched after the polar transform, which no graph here does.")
    if spec.preprocessing.polar_scale != 1:
        raise ConfigError("This model's tiles are resized after the polar transform, which no graph here does.")
    if not 2 <= side <= MAX_SIDE:
        raise ConfigError(f"A tile's side of {side} pixels is out of range: allowed are 2 to {MAX_SIDE}.")
    how = msgspec.structs.replace(spec.preprocessing, height=side, width=side, polar=False)
    return msgspec.structs.replace(spec, preprocessing=how)
