"""A block of ConvNeXt, and its exported form. torchvision loads as much as PyTorch: import this where it is needed."""

from torch import Tensor, nn
from torchvision.models.convnext import CNBlock


class Block(CNBlock):  # type: ignore[misc]  # torchvision has no types
    """torchvision's block."""

    def folded(self) -> "TokenBlock":
        """A module that gives the same in evaluation."""
        return TokenBlock(self)


class TokenBlock(nn.Module):
    """A block in evaluation, [B, C, H, W] -> [B, C, H, W]; its two products take tokens [B, H W, C].

    With three axes OpenVINO computes bias and GELU within an 8-bit product, with four as a layer of their own (2026.4).
    The layer scale is part of the second product.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.conv, _, self.norm, self.first, self.activation, last, _ = block.block
        scale = block.layer_scale.detach().flatten()
        self.second = nn.Linear(last.in_features, last.out_features)
        self.second.weight = nn.Parameter(scale[:, None] * last.weight.detach())
        self.second.bias = nn.Parameter(scale * last.bias.detach())

    def forward(self, features: Tensor) -> Tensor:
        _, channels, height, width = features.shape
        tokens = self.conv(features).permute(0, 2, 3, 1).reshape(-1, height * width, channels)
        change = self.second(self.activation(self.first(self.norm(tokens))))
        summed: Tensor = features.permute(0, 2, 3, 1) + change.reshape(-1, height, width, channels)
        return summed.permute(0, 3, 1, 2)
