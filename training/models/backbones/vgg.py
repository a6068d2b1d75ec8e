"""VGG without its last pooling and classifier.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

Convolution = Callable[[int, int], nn.Module]
"""Makes a convolution of so many channels in and out."""

PADDED: Convolution = partial(nn.Conv2d, kernel_size=3, padding=1)
_WITH_DROPOUT = 3
"""The first stage with dropout behind its convolutions."""


def vgg(
    widths: Sequence[int],
    convolutions: Sequence[int],
    dropout: float,
    *,
    convolution: Convolution = PADDED,
    ceil: bool = False,
) -> nn.Sequential:
    """[B, 3, H, W] -> [B, C, h, w], both sides halved between stages, rounded down, or up with `ceil`."""
    layers: list[nn.Module] = []
    width_in = 3
    for stage, (width, count) in enumerate(zip(widths, convolutions, strict=True)):
        if stage:
            layers.append(nn.MaxPool2d(2, ceil_mode=ceil))
        for _ in range(count):
            layer = convolution(width_in, width)
            for weight in layer.parameters():
                if weight.ndim == 4:
                    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
            layers += [layer, *([nn.Dropout(dropout)] if stage >= _WITH_DROPOUT else []), nn.ReLU(inplace=True)]
            width_in = width
    return nn.Sequential(*layers)


def layer_numbers(convolutions: Sequence[int]) -> dict[str, int]:
    """Where the convolution `I_J`, the J-th of stage I, counted from 1 as in VGG's files, is in the sequence."""
    numbers, place = {}, 0
    for stage, count in enumerate(convolutions):
        place += 1 if stage else 0
        for number in range(count):
            numbers[f"{stage + 1}_{number + 1}"] = place
            place += 3 if stage >= _WITH_DROPOUT else 2
    return numbers
