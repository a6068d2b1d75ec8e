"""CVFT: VGG-16 per view, and a transport plan that moves the ground features to where the aerial ones are.

Source: Shi et al., "Optimal Feature Transport for Cross-View Image Geo-Localization", AAAI 2020, and its release. The
defaults are the release's. Works on normalised images; files, losses and training are out of scope.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones.vgg import vgg
from geodtr.training.models.base import Count, CrossViewModel, Depth, ModelSettings, Share, Uniform, specs_of

_SHARPNESS = 100.0
_STRIDE = 32


class CvftConfig(ModelSettings, frozen=True, kw_only=True, tag="cvft"):
    """`channels` of the feature map that is the descriptor; `iterations` of Sinkhorn's algorithm. The rest is VGG's."""

    channels: Count = 64
    iterations: Depth = 20
    widths: tuple[Count, Count, Count, Count, Count] = (64, 128, 256, 512, 512)
    convolutions: tuple[Depth, Depth, Depth, Depth, Depth] = (2, 2, 3, 3, 3)
    dropout: Share = 0.2


class AerialBranch(nn.Module):
    """Normalised images [B, 3, H, W] -> unit descriptors [B, h*w*C], index = (row*w + column)*C + channel."""

    def __init__(self, config: CvftConfig) -> None:
        super().__init__()
        self.backbone = vgg(config.widths, config.convolutions, config.dropout, ceil=True)
        self.reduce = nn.Conv2d(config.widths[-1], config.channels, kernel_size=3, stride=2)

    def features(self, images: Tensor) -> Tensor:
        """[B, C, ceil(H/32), ceil(W/32)], by TensorFlow's padding: an even side gets its zeros behind it alone."""
        deep = self.backbone(images)
        height, width = deep.shape[2:]
        padded = F.pad(deep, (width % 2, 1, height % 2, 1))
        return F.relu(self.reduce(padded))

    def describe(self, features: Tensor) -> Tensor:
        return F.normalize(features.flatten(2).transpose(1, 2).flatten(1), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.describe(self.features(images))


class GroundBranch(AerialBranch):
    """The same, with the features resized to the aerial branch's `grid` and transported."""

    def __init__(self, config: CvftConfig, grid: tuple[int, int]) -> None:
        super().__init__(config)
        self.grid = grid
        self.transport = Transport(config, grid[0] * grid[1])

    def describe(self, features: Tensor) -> Tensor:
        resized = resize_asymmetric(features, self.grid)
        moved = self.transport(resized).transpose(1, 2) @ resized.flatten(2).transpose(1, 2)
        return F.normalize(moved.flatten(1), dim=1)


class Transport(nn.Module):
    """Features [B, C, h, w] -> a plan [B, h*w, h*w]: how much of each position, by row, goes to which, by column."""

    def __init__(self, config: CvftConfig, positions: int) -> None:
        super().__init__()
        self.iterations = config.iterations
        self.squeeze = nn.Conv2d(config.channels, 1, kernel_size=1)
        self.costs = nn.Linear(positions, positions**2)
        nn.init.trunc_normal_(self.costs.weight, std=0.005, a=-0.01, b=0.01)
        with torch.no_grad():
            self.costs.bias.copy_(torch.eye(positions).flatten())

    def forward(self, features: Tensor) -> Tensor:
        squeezed = F.relu(self.squeeze(features)).flatten(1)
        costs = self.costs(squeezed).unflatten(1, (squeezed.shape[1], -1))
        return sinkhorn(-_SHARPNESS * costs, self.iterations)


class Cvft(CrossViewModel):
    """Two branches without shared weights; the ground one has the transport."""

    def __init__(self, config: CvftConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__()
        self.config = config
        rows, columns = grid(aerial)
        self.ground = GroundBranch(config, (rows, columns))
        self.aerial = AerialBranch(config)
        self.specs = specs_of(ground, aerial, rows * columns * config.channels)

    def branch(self, branch: Branch) -> AerialBranch:
        return self.ground if branch == "ground" else self.aerial

    def training_outputs(self, branch: Branch, images: Tensor, uniform: Uniform) -> tuple[Tensor, ...]:
        """The transport is always computed in float32: half precision's rounding of a cost changes a plan by 5 %."""
        del uniform
        network = self.branch(branch)
        features = network.features(images)
        with torch.autocast(features.device.type, enabled=False):
            return (network.describe(features.float()),)

    @property
    def trunks(self) -> list[nn.Module]:
        return [self.ground.backbone, self.aerial.backbone]


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """The plan exp(A) [B, N, N] whose columns add up to 1, and nearly its rows: each in turn is made to, by logarithms.

    The largest of each is subtracted first, which no backend's own LogSoftmax is known to do.
    """
    for _ in range(iterations):
        for axis in (2, 1):
            logits = logits - logits.amax(dim=axis, keepdim=True)
            logits = logits - logits.exp().sum(dim=axis, keepdim=True).log()
    return logits.exp()


def resize_asymmetric(features: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, *size], bilinear as in TensorFlow 1: corners of the first pixels match, not centres."""
    for axis, wanted in ((2, size[0]), (3, size[1])):
        given = features.shape[axis]
        place = torch.arange(wanted, dtype=torch.float64) * given / wanted
        first = place.long()
        weight = (place - first).to(features.dtype).reshape((-1, 1) if axis == 2 else (-1,)).to(features.device)
        second = (first + 1).clamp(max=given - 1).to(features.device)
        near, far = (features.index_select(axis, index) for index in (first.to(features.device), second))
        features = near + (far - near) * weight
    return features


def grid(preprocessing: Preprocessing) -> tuple[int, int]:
    """Rows and columns of the features for this input size. Raises ConfigError when there is one position only."""
    rows, columns = (-(-side // _STRIDE) for side in (preprocessing.height, preprocessing.width))
    if rows * columns < 2:
        raise ConfigError(
            f"An input of {preprocessing.height}x{preprocessing.width} gives one feature position, and nothing to "
            "transport. Use larger images."
        )
    return rows, columns
