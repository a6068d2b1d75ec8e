"""What CDE trains beside its encoder and discards: the decoder, which draws street views, and their discriminator.

Source: Toker et al., CVPR 2021, and its release. The attention over positions is BigGAN's (Brock et al., ICLR 2019).
Works on normalised images; losses are out of scope.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geodtr.training.models.cde import CdeConfig, SpectralConv, instance_norm

_SLOPE = 0.1


class NonLocal(nn.Module):
    """Attention of all positions to pooled ones, added to the features [B, C, H, W]; nothing of it at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.theta, self.phi = (SpectralConv(width, max(1, width // 8), 1, bias=False) for _ in range(2))
        self.g = SpectralConv(width, width // 2, 1, bias=False)
        self.o = SpectralConv(width // 2, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.tensor(0.0))

    def forward(self, features: Tensor) -> Tensor:
        theta = self.theta(features).flatten(2)
        phi, g = (F.max_pool2d(part(features), 2).flatten(2) for part in (self.phi, self.g))
        shares = (theta.transpose(1, 2) @ phi).softmax(dim=2)
        attended = (g @ shares.transpose(1, 2)).unflatten(2, features.shape[2:])
        added: Tensor = self.gamma * self.o(attended) + features
        return added


class Up(nn.Module):
    """Features [B, C, H, W] -> [B, C', 2H, 2W], normalised."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1, self.first = instance_norm(width_in), SpectralConv(width_in, width, 3)
        self.norm2, self.second = instance_norm(width), SpectralConv(width, width, 3)
        self.shortcut = SpectralConv(width_in, width, 1)
        self.norm = instance_norm(width)

    def forward(self, features: Tensor) -> Tensor:
        deep = self.second(F.relu(self.norm2(self.first(_enlarged(F.relu(self.norm1(features)))))))
        # The same as a 1x1 convolution of the enlarged features, in a quarter of the time.
        raised: Tensor = self.norm(deep + _enlarged(self.shortcut(features)))
        return raised


class Decoder(nn.Module):
    """What the encoder's `stages` give -> street views [B, 3, H, W] between -1 and 1; 8 must divide both sides."""

    def __init__(self, config: CdeConfig) -> None:
        super().__init__()
        first, second, third = config.encoder
        self.up3, self.up2, self.up1 = Up(2 * third, second), Up(2 * second, first), Up(2 * first, first)
        self.attention = NonLocal(2 * second)
        self.end = _plain(first, 3, size=3)

    def forward(self, first: Tensor, second: Tensor, third: Tensor, bottleneck: Tensor) -> Tensor:
        features = self.up3(torch.cat([bottleneck, third], dim=1))
        features = self.up2(self.attention(torch.cat([features, second], dim=1)))
        views: Tensor = self.end(self.up1(torch.cat([features, first], dim=1))).tanh()
        return views


class Discriminator(nn.Sequential):
    """Polar tiles and street views, joined [B, 6, H, W] -> a logit of each patch [B, 1, h, w], high for real views."""

    def __init__(self, config: CdeConfig) -> None:
        first, second, third = config.encoder
        super().__init__(
            _plain(6, first, size=4, stride=2),
            nn.LeakyReLU(_SLOPE),
            SpectralConv(first, second, 4, stride=2, padding_mode="zeros"),
            nn.LeakyReLU(_SLOPE),
            NonLocal(second),
            SpectralConv(second, third, 4, stride=2, padding_mode="zeros"),
            nn.LeakyReLU(_SLOPE),
            SpectralConv(third, 2 * third, 4, padding_mode="zeros"),
            nn.LeakyReLU(_SLOPE),
            _plain(2 * third, 1, size=4),
        )


def _enlarged(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


def _plain(width_in: int, width: int, *, size: int, stride: int = 1) -> nn.Conv2d:
    convolution = nn.Conv2d(width_in, width, size, stride=stride, padding=1)
    nn.init.normal_(convolution.weight, std=0.02)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution
