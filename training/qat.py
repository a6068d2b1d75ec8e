"""Quantisation-aware training: simulate INT8 arithmetic so that the weights adapt to rounding.

Activations and weights are rounded as in the exported graph; the gradient uses the straight-through estimator (Jacob et
al., CVPR 2018, section 3; Bengio et al., 2013). Batch normalisation is frozen and folded into the weights before they
are rounded, as the exporter does. The state dict keeps its names, so the result is an ordinary checkpoint.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from geodtr.runtime.errors import ConfigError

_LARGEST = 255
_SMALLEST_SCALE = 1e-9


class Convolution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges of a convolution's input and of its output after normalisation."""

    reads: tuple[float, float]
    writes: tuple[float, float]


class Int8Simulation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The convolutions to simulate, by module name; `finetune` sets them. `weight_bits`: 7 for CPUs without VNNI."""

    convolutions: dict[str, Convolution] = {}
    weight_bits: Literal[7, 8] = 8


class RoundedConvolution(nn.Conv2d):
    """A convolution with 8-bit input and weights."""

    limits: tuple[float, float]
    largest: int
    normalisation: tuple[nn.BatchNorm2d]
    """In a tuple, because a module as an attribute would appear in the state dict twice."""

    def forward(self, images: Tensor) -> Tensor:
        (norm,) = self.normalisation
        if norm.running_var is None:
            raise AssertionError("a frozen normalisation needs running statistics")
        factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        factor = torch.where(factor.abs() < _SMALLEST_SCALE, torch.ones_like(factor), factor)[:, None, None, None]
        folded = self.weight * factor
        scale = (folded.detach().abs().amax(dim=(1, 2, 3)) / self.largest).clamp_min(_SMALLEST_SCALE)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        rounded = torch.fake_quantize_per_channel_affine(folded, scale, zero, 0, -self.largest, self.largest)
        features: Tensor = self._conv_forward(round_activations(images, self.limits), rounded / factor, self.bias)
        return features


class FrozenNormalisation(nn.BatchNorm2d):
    """Batch normalisation that always uses its running statistics and rounds its output to 8 bits."""

    limits: tuple[float, float]

    def train(self, mode: bool = True) -> "FrozenNormalisation":
        del mode
        super().train(False)
        return self

    def forward(self, features: Tensor) -> Tensor:
        return round_activations(super().forward(features), self.limits)


def round_activations(tensor: Tensor, limits: tuple[float, float]) -> Tensor:
    """Round `tensor` to 256 even steps over `limits`, extended to include zero; gradients pass within them."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = max((high - low) / _LARGEST, _SMALLEST_SCALE)
    return torch.fake_quantize_per_tensor_affine(tensor, scale, round(-low / scale), 0, _LARGEST)


def simulate_int8(model: nn.Module, simulation: Int8Simulation) -> None:
    """Make the named convolutions of `model` and the normalisations after them compute as INT8 engines do.

    Raises ConfigError when a name is not a convolution followed by a normalisation.
    """
    followed = _followed(model)
    for name, ranges in simulation.convolutions.items():
        if name not in followed:
            raise ConfigError(
                f"int8.convolutions names {name}, which is not a convolution followed by a normalisation."
            )
        convolution, norm_name, norm = followed[name]
        frozen = _frozen(norm, ranges.writes)
        model.set_submodule(norm_name, frozen)
        model.set_submodule(name, _rounded(convolution, frozen, ranges.reads, 2 ** (simulation.weight_bits - 1) - 1))


def without_norm(model: nn.Module) -> list[str]:
    """The names of convolutions in `model` that `simulate_int8` refuses: no batch normalisation follows them."""
    followed = _followed(model)
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and name not in followed]


def _followed(model: nn.Module) -> Mapping[str, tuple[nn.Conv2d, str, nn.BatchNorm2d]]:
    """Convolutions by name, each with the batch normalisation after it."""
    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    return {
        name: (module, next_name, next_module)
        for (name, module), (next_name, next_module) in pairwise(leaves)
        if isinstance(module, nn.Conv2d) and isinstance(next_module, nn.BatchNorm2d)
    }


def _frozen(norm: nn.BatchNorm2d, limits: tuple[float, float]) -> FrozenNormalisation:
    frozen = FrozenNormalisation(norm.num_features, norm.eps)
    frozen.weight, frozen.bias = norm.weight, norm.bias
    frozen.running_mean, frozen.running_var = norm.running_mean, norm.running_var
    frozen.num_batches_tracked = norm.num_batches_tracked
    frozen.limits = limits
    return frozen.train()


def _rounded(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, limits: tuple[float, float], largest: int
) -> RoundedConvolution:
    rounded = RoundedConvolution(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type] # PyTorch's stubs declare tuples of any length
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        convolution.dilation,  # type: ignore[arg-type]
        convolution.groups,
        bias=convolution.bias is not None,
    )
    rounded.weight, rounded.bias = convolution.weight, convolution.bias
    rounded.limits, rounded.largest, rounded.normalisation = limits, largest, (norm,)
    return rounded
