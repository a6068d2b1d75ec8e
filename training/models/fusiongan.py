"""FusionGAN: a query is its panorama and the tile that a generator draws of it, each described, then fused.

Source: Regmi and Shah, "Bridging the Domain Gap for Ground-to-Aerial Image Matching", ICCV 2019, and its release. The
defaults are the release's. The baseline of two streams has neither generator nor fusion. Works on normalised images;
files and losses are out of scope. The generator's own training is in fusiongan_stage1.py.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing, per_channel
from geodtr.training.models.base import Count, CrossViewModel, ModelSettings, Share, TwoNetworks, Uniform, specs_of

MOST_LAYERS = 13
"""Each halves the sides of an image, which has 16,384 pixels at most."""
_SCALES = 3
"""The last layers of a stream, which are described together."""
_LAYERS = msgspec.Meta(min_length=_SCALES, max_length=MOST_LAYERS)
_DROPPED = 3
"""The first steps of the generator's decoder, which have dropout."""
Widths = Annotated[tuple[Count, ...], _LAYERS]


class TwoStreamConfig(ModelSettings, frozen=True, kw_only=True, tag="fusiongan-two-stream"):
    """`widths` of a stream's layers, each of which halves both sides; `dropout` follows the last three."""

    descriptor_size: Count = 1000
    widths: Widths = (64, 128, 256, *5 * (512,))
    dropout: Share = 0.5


class FusionGanConfig(TwoStreamConfig, frozen=True, kw_only=True, tag="fusiongan"):
    """`generator`: widths of its encoder's layers, which its decoder mirrors. A `frozen` one stays as it is begun with;
    another learns to draw what its tile is found by.
    """

    generator: Widths = (64, 128, 256, *4 * (512,))
    frozen: bool = True


class Layer(nn.Conv2d):
    """TensorFlow's SAME padding: an even side gets a zero before and one behind it, an odd side one more behind it."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__(width_in, width, kernel_size=4, stride=2, padding=1)
        nn.init.xavier_uniform_(self.weight)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[2:]
        activated: Tensor = self.dropout(F.relu(super().forward(F.pad(features, (0, width % 2, 0, height % 2)))))
        return activated


class Stream(nn.Sequential):
    """Normalised images [B, 3, H, W] -> features of the last three layers [B, F], each (row, column, channel)."""

    def __init__(self, config: TwoStreamConfig) -> None:
        first = len(config.widths) - _SCALES
        pairs = pairwise((3, *config.widths))
        super().__init__(*(Layer(*pair, config.dropout * (number >= first)) for number, pair in enumerate(pairs)))

    def forward(self, images: Tensor) -> Tensor:
        scales = [images]
        for layer in self:
            scales = [*scales[1 - _SCALES :], layer(scales[-1])]
        return torch.cat([features.permute(0, 2, 3, 1).flatten(1) for features in scales], dim=1)


class StreamBranch(nn.Module):
    """One view: normalised images [B, 3, H, W] -> unit descriptors [B, D]."""

    def __init__(self, config: TwoStreamConfig, how: Preprocessing) -> None:
        super().__init__()
        self.backbone = Stream(config)
        self.reduce = _linear(_features(config, how), config.descriptor_size, bias=0.1)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.reduce(self.backbone(images)), dim=1)


class TwoStream(TwoNetworks[StreamBranch]):
    """Two branches without shared weights."""

    def __init__(self, config: TwoStreamConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__(partial(StreamBranch, config), config.descriptor_size, ground, aerial)
        self.config = config


class Step(nn.Module):
    """A convolution of the generator, with its batch norm if it has one, and dropout."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, dropout: float = 0.0, *, normed: bool) -> None:
        super().__init__()
        assert conv.bias is not None
        nn.init.normal_(conv.weight, std=0.02)
        nn.init.zeros_(conv.bias)
        self.conv, self.norm = conv, nn.BatchNorm2d(conv.out_channels) if normed else None
        if self.norm is not None:
            nn.init.normal_(self.norm.weight, 1.0, 0.02)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.conv(features)
        normed: Tensor = convolved if self.norm is None else self.norm(convolved)
        dropped: Tensor = self.dropout(normed)
        return dropped

    def folded(self) -> nn.Module:
        """What gives the same in evaluation with a plain convolution."""
        transposed = isinstance(self.conv, nn.ConvTranspose2d)
        plain = self.conv if self.norm is None else fuse_conv_bn_eval(self.conv, self.norm, transpose=transposed)
        return Doubling(plain) if isinstance(plain, nn.ConvTranspose2d) else plain


class Doubling(nn.Module):
    """A transposed convolution of 4x4, stride 2 and padding 1 as a plain one: [B, C, H, W] -> [B, C', 2H, 2W].

    Each output is a sum over 2x2 inputs, of which there are four kinds. One convolution gives the four as channels, and
    depth-to-space puts them in place. Graphs are quantised at plain convolutions and products alone.
    """

    def __init__(self, transposed: nn.ConvTranspose2d) -> None:
        super().__init__()
        assert transposed.bias is not None
        self.conv = nn.Conv2d(transposed.in_channels, 4 * transposed.out_channels, 2, padding=1)
        flipped = transposed.weight.detach().transpose(0, 1).flip(2, 3)
        # An odd output and the even one behind it are sums over the same inputs; what is left over at the rim is cut.
        kernels = [flipped[:, :, row::2, column::2] for row in (1, 0) for column in (1, 0)]
        self.conv.weight = nn.Parameter(torch.stack(kernels, dim=1).flatten(0, 1))
        self.conv.bias = nn.Parameter(transposed.bias.detach().repeat_interleave(4))

    def forward(self, features: Tensor) -> Tensor:
        placed = F.pixel_shuffle(self.conv(features), 2)
        return placed[:, :, 1:-1, 1:-1]


class Generator(nn.Module):
    """X-Fork, up to the tile that it draws: panoramas as the ground branch takes them [B, 3, H, W] -> tiles as the
    aerial branch takes them [B, 3, S, S].

    It sees the panorama resized to S/2 x 2S. Its features become a square by their order in memory, as in the release.
    Its second output, a segmentation, is left out. `dropout` is for its own training.
    """

    gain_in: Tensor
    shift_in: Tensor
    gain_out: Tensor
    shift_out: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self, widths: Sequence[int], ground: Preprocessing, aerial: Preprocessing, dropout: float = 0.0
    ) -> None:
        super().__init__()
        side = aerial.height
        if aerial.polar or side != aerial.width or side % 2 ** (len(widths) + 1):
            raise ConfigError(
                f'The model "fusiongan" draws square tiles, and with {len(widths)} layers in model.generator '
                f"{2 ** (len(widths) + 1)} must divide their side; aerial is {aerial.height}x{aerial.width}"
                f"{' polar' if aerial.polar else ''}. Change one of them."
            )
        self.side = side >> len(widths)
        down, up = (partial(each, kernel_size=4, stride=2, padding=1) for each in (nn.Conv2d, nn.ConvTranspose2d))
        inwards, outwards = pairwise((3, *widths)), pairwise((*reversed(widths), 3))
        self.encoder = nn.Sequential(*(Step(down(*pair), normed=number > 0) for number, pair in enumerate(inwards)))
        self.fork = len(widths) - 2  # where the segmentation begins; without an activation before it
        self.decoder = nn.Sequential(
            *(
                Step(up(*pair), dropout * (number < min(_DROPPED, self.fork)), normed=number <= self.fork)
                for number, pair in enumerate(outwards)
            )
        )
        mean_in, std_in, mean_out, std_out = (
            torch.tensor(per_channel(values))[:, None, None]
            for values in (ground.mean, ground.std, aerial.mean, aerial.std)
        )
        for name, values in {
            "gain_in": 2 * std_in,
            "shift_in": 2 * mean_in - 1,
            "gain_out": 0.5 / std_out,
            "shift_out": (0.5 - mean_out) / std_out,
            "rows": resize_matrix(ground.height, side // 2),
            "columns": resize_matrix(ground.width, 2 * side).T,
        }.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.rows @ ((images * self.gain_in + self.shift_in) @ self.columns)
        for number, step in enumerate(self.encoder):
            features = step(F.leaky_relu(features, 0.2) if number else features)
        features = features.reshape(-1, features.shape[1], self.side, self.side)
        for number, step in enumerate(self.decoder):
            features = step(features if number == self.fork else F.relu(features))
        tiles: Tensor = features.tanh() * self.gain_out + self.shift_out
        return tiles

    def values(self, tiles: Tensor) -> Tensor:
        """Of tiles as the aerial branch takes them, real or drawn, the pixels from -1 to 1."""
        return (tiles - self.shift_out) / self.gain_out


class FusionGan(CrossViewModel):
    """Three streams, the generator in front of one of them, and a fusion for each branch.

    Drawn tiles have a stream of their own and share the linear layer of the real ones, `aerial.reduce`. Stage 2, the
    streams, and stage 3, the fusion, train at once: no gradient goes from the fusion to the streams.
    """

    output_weights = (1.0, 10 / 11, 1 / 11)

    def __init__(self, config: FusionGanConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__()
        self.config, size = config, config.descriptor_size
        self.generator = Generator(config.generator, ground, aerial).requires_grad_(not config.frozen)
        self.ground, self.aerial = (StreamBranch(config, how) for how in (ground, aerial))
        self.drawn = Stream(config)
        fusions = {"ground": _linear(2 * size, size, bias=0.01), "aerial": _linear(size, size, bias=0.01)}
        self.fuse = nn.ModuleDict(fusions)
        self.specs = specs_of(ground, aerial, size)

    def train(self, mode: bool = True) -> "FusionGan":
        super().train(mode)
        self.generator.train(mode and not self.config.frozen)
        return self

    def branch(self, branch: Branch) -> nn.Module:
        return _Whole(self, branch)

    def descriptors(self, branch: Branch, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit rows [B, D]: the branch's descriptor, then what stage 2 compares with the other branch, in pairs."""
        if branch == "aerial":
            tile = self.aerial(images)
            parts, pair = [tile], (tile, tile)
        else:
            drawn = F.normalize(self.aerial.reduce(self.drawn(self.generator(images))), dim=1)
            pair = self.ground(images), drawn
            parts = [*pair]
        fused = self.fuse[branch](torch.cat(parts, dim=1).detach())
        return F.normalize(fused, dim=1), *pair

    def training_outputs(self, branch: Branch, images: Tensor, uniform: Uniform) -> tuple[Tensor, ...]:
        del uniform
        return tuple(rows.float() for rows in self.descriptors(branch, images))

    @property
    def trunks(self) -> list[nn.Module]:
        return [self.generator, self.ground, self.aerial, self.drawn]


class _Whole(nn.Module):
    """A branch of a model whose branches share weights: a model that held both would name these twice."""

    def __init__(self, model: FusionGan, branch: Branch) -> None:
        super().__init__()
        self.model, self.view = model, branch

    def forward(self, images: Tensor) -> Tensor:
        return self.model.descriptors(self.view, images)[0]


def resize_matrix(given: int, wanted: int) -> Tensor:
    """Shares of the `given` pixels of a row in each of the `wanted` ones, as Torch's image.scale: [wanted, given].

    Linear between pixels, the first and last of both matching, to enlarge; the mean of the area covered, to shrink.
    """
    pixels = torch.arange(given)
    if wanted > given:
        places = torch.arange(wanted) * (given - 1) / (wanted - 1)
        return (1 - (places[:, None] - pixels).abs()).clamp(min=0)
    edges = torch.arange(wanted + 1)[:, None] * given / wanted
    covered = torch.minimum(edges[1:], pixels + 1) - torch.maximum(edges[:-1], pixels)
    return covered.clamp(min=0) * wanted / given


def _linear(width_in: int, width: int, bias: float) -> nn.Linear:
    layer = nn.Linear(width_in, width)
    nn.init.trunc_normal_(layer.weight, std=0.005, a=-0.01, b=0.01)
    nn.init.constant_(layer.bias, bias)
    return layer


def _features(config: TwoStreamConfig, how: Preprocessing) -> int:
    """Number of a stream's features for this input size."""
    count, height, width = 0, how.height, how.width
    for number, channels in enumerate(config.widths):
        height, width = -(-height // 2), -(-width // 2)
        count += channels * height * width * (number >= len(config.widths) - _SCALES)
    return count
