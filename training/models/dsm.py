"""DSM: VGG-16's first stages per view, whose feature maps are compared at every orientation.

Source: Shi et al., "Where Am I Looking At? Joint Location and Orientation Estimation by Cross-View Matching", CVPR
2020, and its release. The defaults are the release's. Works on normalised images; files, losses and training are out of
scope, and so is the comparison: runtime/search/correlation.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import BranchSpec, Correlation, Preprocessing
from geodtr.training.models.backbones.vgg import PADDED, Convolution, vgg
from geodtr.training.models.base import Count, CrossViewModel, Depth, ModelSettings, Share

_STRIDE, _HEAD_STRIDE = 8, 4
_SMALLEST = 1e-12


class DsmConfig(ModelSettings, frozen=True, kw_only=True, tag="dsm"):
    """Widths and convolutions by stage are VGG-16's; `head` the channels behind it, of which the last are kept."""

    widths: tuple[Count, Count, Count, Count] = (64, 128, 256, 512)
    convolutions: tuple[Depth, Depth, Depth, Depth] = (2, 2, 3, 3)
    head: tuple[Count, Count, Count] = (256, 64, 16)
    dropout: Share = 0.2


class Circular(nn.Conv2d):
    """A 3x3 convolution of a full turn: its first column follows its last one. Above and below are zeros."""

    def __init__(self, width_in: int, width: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__(width_in, width, kernel_size=3, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        # F.pad's circular mode would become an operator that TensorRT does not have.
        closed = torch.cat([features[..., -1:], features, features[..., :1]], dim=3)
        return super().forward(F.pad(closed, (0, 0, 1, 1)))


class Same(nn.Conv2d):
    """A 3x3 convolution with TensorFlow's padding: with a stride, an even height gets its zeros below alone."""

    def __init__(self, width_in: int, width: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__(width_in, width, kernel_size=3, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        above = 1 if self.stride[0] == 1 else features.shape[2] % 2
        return super().forward(F.pad(features, (1, 1, above, 1)))


class DsmBranch(nn.Module):
    """One view: normalised images [B, 3, H, W] -> maps as unit rows [B, w*h*C], index = (column*h + row)*C + channel.

    Aerial maps have no unit length in the release; the comparison does not see their length.
    """

    def __init__(self, config: DsmConfig, head: type[Circular | Same], convolution: Convolution) -> None:
        super().__init__()
        self.backbone = vgg(config.widths, config.convolutions, config.dropout, convolution=convolution, ceil=True)
        first, second, last = config.head
        self.head = nn.Sequential(
            head(config.widths[-1], first, stride=(2, 1)),
            nn.ReLU(inplace=True),
            head(first, second, stride=(2, 1)),
            nn.ReLU(inplace=True),
            head(second, last),
        )

    def maps(self, images: Tensor) -> Tensor:
        """The release's output: [B, C, h, w], not of unit length."""
        features: Tensor = self.head(self.backbone(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.maps(images).permute(0, 3, 2, 1).flatten(1), dim=1)


class Dsm(CrossViewModel):
    """Two branches without shared weights; the aerial one sees a full turn, the ground one as much as its width."""

    def __init__(self, config: DsmConfig, ground: Preprocessing, aerial: Preprocessing) -> None:
        super().__init__()
        self.config = config
        self.scorer = scorer_of(config, ground, aerial)
        self.ground = DsmBranch(config, Same, PADDED)
        self.aerial = DsmBranch(config, Circular, Circular)
        sizes = self.scorer.query_size, self.scorer.reference_size
        self.specs = {
            branch: BranchSpec(branch=branch, preprocessing=how, descriptor_size=size, scorer=self.scorer)
            for branch, how, size in zip(BRANCHES, (ground, aerial), sizes, strict=True)
        }

    def branch(self, branch: Branch) -> DsmBranch:
        return self.ground if branch == "ground" else self.aerial

    def similarity(self, ground: Tensor, aerial: Tensor) -> Tensor:
        """The cosine between each ground map and the columns of each aerial one into which it fits best.

        The orientation, which has no gradient, is where the product is largest, as in search.
        """
        scorer = self.scorer
        given = F.pad(ground.reshape(len(ground), scorer.seen, -1), (0, 0, 0, scorer.columns - scorer.seen))
        moved = torch.stack([given.roll(column, dims=1) for column in range(scorer.columns)], dim=1)
        products = moved.flatten(2) @ aerial.T  # [B, columns, B]
        best = products.detach().argmax(dim=1, keepdim=True)
        column = aerial.reshape(len(aerial), scorer.columns, -1).square().sum(dim=2)
        circle = torch.cat([column, column[:, : scorer.seen - 1]], dim=1)
        energy = circle.unfold(1, scorer.seen, 1).sum(dim=2).T  # [columns, B]
        covered = energy.expand(len(ground), -1, -1).gather(1, best)
        return (products.gather(1, best) / covered.clamp(min=_SMALLEST).sqrt()).squeeze(1)

    @property
    def trunks(self) -> list[nn.Module]:
        return [self.ground.backbone, self.aerial.backbone]


def scorer_of(config: DsmConfig, ground: Preprocessing, aerial: Preprocessing) -> Correlation:
    """How maps of these inputs are compared. Raises ConfigError when the inputs do not go together."""
    if not aerial.polar or ground.height != aerial.height or ground.width > aerial.width or aerial.width % _STRIDE:
        raise ConfigError(
            f'The model "dsm" compares polar-transformed tiles, whose width {_STRIDE} divides, with images of the same '
            f"height that are at most as wide; given are {aerial.height}x{aerial.width}"
            f"{' polar' if aerial.polar else ''} and {ground.height}x{ground.width}."
        )
    rows = -(-aerial.height // (_STRIDE * _HEAD_STRIDE))
    scorer = Correlation(
        columns=aerial.width // _STRIDE,
        seen=-(-ground.width // _STRIDE),
        values=rows * config.head[-1],
        field_of_view=360 * ground.width / aerial.width,
    )
    seen, stated = scorer.field_of_view, ground.imagery.field_of_view
    if stated is not None and not scorer.sees(stated):
        raise ConfigError(
            f"{ground.width} of {aerial.width} columns are a field of view of {seen:.0f} degrees, and "
            f"ground.imagery.field_of_view is {stated:g}: images of that view would be squeezed. Change one of them, "
            f"for example: --set ground.imagery.field_of_view={seen:.0f}"
        )
    return scorer
