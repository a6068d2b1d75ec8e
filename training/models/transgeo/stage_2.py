"""TransGeo's stage 2: the aerial network sees the patches of a larger image to which stage 1 attended most.

The aerial branch holds two networks: the first layers of stage 1's, which does not train any more and gives an
attention map of the overview, and its own, which sees the patches that are kept. The ground branch is stage 1's.
Source and scope as in stage_1.py.

Which patches are kept is computed in integers, so that every backend keeps the same ones of the same map: the map in
256 levels, resized bilinearly without rounding, and of equal values the one of the larger index.
"""

from collections.abc import Mapping
from math import gcd
from typing import Annotated

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones.vit import EPSILON, Layer, Tokens, split_heads
from geodtr.training.models.base import TwoNetworks, check_heads
from geodtr.training.models.transgeo.stage_1 import LEARNED, TransGeoBranch, TransGeoConfig, grid

_LARGEST_LEVEL = 255
_LARGEST_KEY = 2**31
_TABLE = "aerial.tokens.position"


class TransGeoStage2Config(TransGeoConfig, frozen=True, kw_only=True, tag="transgeo-stage2"):
    """`kept`: share of the aerial patches that the network sees, rounded down to a whole number of them."""

    kept: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.64


class LastAttention(nn.Module):
    """Stage 1's last layer up to its attention: tokens [B, L + N, C] -> how much is attended to each patch, [B, N].

    The sum over all heads and the learned tokens.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, "the width of the tokens", heads)
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = nn.ModuleDict({"query": nn.Linear(width, width), "key": nn.Linear(width, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        normalised = self.attention_norm(tokens)
        query = split_heads(self.attention["query"](normalised[:, :LEARNED]), self.heads)
        key = split_heads(self.attention["key"](normalised), self.heads)
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        attended: Tensor = scores.softmax(dim=-1)[..., LEARNED:].sum(dim=(1, 2))
        return attended


class AttentionMap(nn.Module):
    """Overviews [B, 3, h, w] -> attention in levels of 0 to 255, int32 [B, rows, columns]. It does not train.

    Its weights have the names that they have in stage 1's branch. The release stores levels in pictures of 8 bits.
    """

    def __init__(self, config: TransGeoStage2Config, side: int) -> None:
        super().__init__()
        self.grid = grid(config.patch, side, side)
        patches = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)
        self.tokens = Tokens(patches, LEARNED, self.grid[0] * self.grid[1])
        whole = [Layer(config.width, config.heads, config.feed_forward) for _ in range(config.layers - 1)]
        self.layers = nn.Sequential(*whole, LastAttention(config.width, config.heads))
        self.requires_grad_(False)

    def attention(self, overviews: Tensor) -> Tensor:
        """float32 [B, rows, columns], the largest of each image 1."""
        attended: Tensor = self.layers(self.tokens(overviews))
        largest = attended.amax(dim=1, keepdim=True)
        return (attended / largest).view(-1, *self.grid)

    def forward(self, overviews: Tensor) -> Tensor:
        return (self.attention(overviews) * _LARGEST_LEVEL).floor().int()


class Selection(nn.Module):
    """Levels [B, rows, columns] -> numbers of the `kept` patches of a finer grid, int64 [B, kept].

    Bilinear without antialiasing, corners not aligned, as PyTorch's `interpolate`, times the square of the weights'
    denominator. Raises ConfigError when keys do not fit 32 bits.
    """

    def __init__(self, of: tuple[int, int], onto: tuple[int, int], kept: int) -> None:
        super().__init__()
        self.kept, self.patches, largest = kept, onto[0] * onto[1], _LARGEST_LEVEL
        for axis, (given, wanted) in enumerate(zip(of, onto, strict=True)):
            rows = [divmod(max(0, (2 * row + 1) * given - wanted), 2 * wanted) for row in range(wanted)]
            common = gcd(2 * wanted, *(rest for _, rest in rows))
            largest *= 2 * wanted // common
            for name, values in {
                "near": [low for low, _ in rows],
                "far": [min(low + 1, given - 1) for low, _ in rows],
                "near_weight": [(2 * wanted - rest) // common for _, rest in rows],
                "far_weight": [rest // common for _, rest in rows],
            }.items():
                kind = torch.int32 if name.endswith("weight") else torch.int64
                self.register_buffer(f"{name}{axis}", torch.tensor(values, dtype=kind), persistent=False)
        if (largest + 1) * self.patches > _LARGEST_KEY:
            raise ConfigError(
                f"A map of {of[0]}x{of[1]} patches cannot be resized to {onto[0]}x{onto[1]} in 32-bit integers. Choose "
                "sizes with a common factor, such as 256 and 320 pixels."
            )

    def values(self, levels: Tensor) -> Tensor:
        """The resized map, int32 [B, patches], in units of the weights."""
        rows = self._between(levels, 0, dim=1)
        return self._between(rows, 1, dim=2).flatten(1)

    def forward(self, levels: Tensor) -> Tensor:
        values = self.values(levels)
        # Of equal values the larger index wins: keys differ, so that no backend has to break a tie.
        order = torch.arange(self.patches, dtype=torch.int32, device=values.device)
        return (values * self.patches + order).topk(self.kept, dim=1).indices

    def _between(self, levels: Tensor, axis: int, dim: int) -> Tensor:
        near, far = (levels.index_select(dim, getattr(self, f"{name}{axis}")) for name in ("near", "far"))
        shape = (-1, 1) if dim == 1 else (-1,)
        near_weight, far_weight = (getattr(self, f"{name}_weight{axis}").view(shape) for name in ("near", "far"))
        between: Tensor = near * near_weight + far * far_weight
        return between


class SelectingBranch(TransGeoBranch):
    """The aerial view: normalised images with their overviews [B, 3, H, W] -> unit descriptors [B, D]."""

    def __init__(self, config: TransGeoStage2Config, how: Preprocessing) -> None:
        super().__init__(config, how)
        self.width, self.overview = how.width, how.overview
        self.map = AttentionMap(config, how.overview)
        patches = grid(config.patch, how.height, how.width)
        kept = int(config.kept * patches[0] * patches[1])
        if not kept:
            raise ConfigError(f"model.kept {config.kept} of {patches[0]}x{patches[1]} patches is none. Raise it.")
        self.selection = Selection(self.map.grid, patches, kept)

    def kept(self, images: Tensor) -> Tensor:
        """The numbers of the patches that are seen, in rows, int64 [B, kept]."""
        numbers: Tensor = self.selection(self.map(images[:, :, : self.overview, self.width :]))
        return numbers

    def seen(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.tokens(images[..., : self.width])
        # Repeated, not expanded to the tokens' shape: an exported graph reads no batch size.
        numbers = self.kept(images)[:, :, None].repeat(1, 1, tokens.shape[2])
        return torch.cat([tokens[:, :LEARNED], tokens[:, LEARNED:].gather(1, numbers)], dim=1)


class TransGeoStage2(TwoNetworks[TransGeoBranch]):
    """Two branches without shared weights; the aerial one holds stage 1's map."""

    def __init__(self, config: TransGeoStage2Config, ground: Preprocessing, aerial: Preprocessing) -> None:
        if not aerial.overview:
            raise ConfigError(
                'The model "transgeo-stage2" chooses its patches by an overview, and aerial.overview is 0. Set it to '
                "the side of stage 1's aerial images, for example: --set aerial.overview=256"
            )

        def make(how: Preprocessing) -> TransGeoBranch:
            return SelectingBranch(config, how) if how.overview else TransGeoBranch(config, how)

        super().__init__(make, config.descriptor_size, ground, aerial)
        self.config = config


def stage_1_config(config: TransGeoStage2Config) -> TransGeoConfig:
    """The network of the stage before, which has the same sizes."""
    return TransGeoConfig(**{name: getattr(config, name) for name in TransGeoConfig.__struct_fields__})


def first_image(aerial: Preprocessing) -> Preprocessing:
    """What stage 1's aerial branch takes: the overview of stage 2's."""
    return msgspec.structs.replace(aerial, height=aerial.overview, width=aerial.overview, overview=0)


def map_weights(stage_1: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Of stage 1's weights, those that its attention map needs, as stage 2 names them."""
    last = f"layers.{layers - 1}."
    unused = tuple(last + part for part in ("attention.value.", "attention.out.", "feed_forward"))
    weights = dict[str, Tensor]()
    for name, tensor in stage_1.items():
        branch, _, rest = name.partition(".")
        if branch == "aerial" and rest.startswith(("tokens.", "layers.")) and not rest.startswith(unused):
            weights[f"aerial.map.{rest}"] = tensor
    return weights


def begin(stage_1: Mapping[str, Tensor], config: TransGeoStage2Config, aerial: Preprocessing) -> dict[str, Tensor]:
    """The weights with which stage 2 begins to train: stage 1's, with the aerial position table resized, and its map.

    Bilinear without antialiasing, corners not aligned, as the release does.
    """
    learned, table = stage_1[_TABLE][:, :LEARNED], stage_1[_TABLE][:, LEARNED:]
    given = grid(config.patch, aerial.overview, aerial.overview)
    rows = table.transpose(1, 2).reshape(1, config.width, *given)
    resized = F.interpolate(rows, grid(config.patch, aerial.height, aerial.width), mode="bilinear")
    position = torch.cat([learned, resized.flatten(2).transpose(1, 2)], dim=1)
    return {**stage_1, _TABLE: position, **map_weights(stage_1, config.layers)}
