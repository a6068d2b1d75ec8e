"""The reference model as an `Embedder`, and the normalisation of raw pixels that every export shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodtr.runtime.engines.base import check_images
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import BranchSpec, Descriptors, EmbedderPair, Images, PerChannel, Preprocessing
from geodtr.training.models.base import CrossViewModel


class FromPixels(nn.Module):
    """uint8 [B, H, W, 3] -> unit descriptors [B, D]. The graph normalises, so that callers cannot do it wrong."""

    def __init__(self, branch: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.branch = branch
        self.mean, self.std = preprocessing.mean, preprocessing.std

    def forward(self, images: Tensor) -> Tensor:
        descriptors: Tensor = self.branch(normalise(images, self.mean, self.std))
        return descriptors


def normalise(images: Tensor, mean: PerChannel, std: PerChannel) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W], pixels scaled to 0..1, minus mean, over std.

    The cast comes first: TensorRT accepts uint8 only as a network input that is cast at once (its guide, Types and
    Precision), and cannot transpose it.
    """
    return (images.float().permute(0, 3, 1, 2) / 255 - _broadcast(mean, images)) / _broadcast(std, images)


def _broadcast(values: PerChannel, images: Tensor) -> float | Tensor:
    """One value as it is, three as [3, 1, 1] beside `images`."""
    return torch.tensor(values, device=images.device)[:, None, None] if isinstance(values, tuple) else values


@contextmanager
def exact_float32() -> Iterator[None]:
    """Disable TF32 on GPUs. It is PyTorch's default for convolutions from Ampere on.

    TF32 has 10 bits of mantissa, too few for a reference model.
    """
    backends: Any = torch.backends  # the stubs lack attributes of PyTorch 2.9
    cudnn, newer = backends.cudnn, hasattr(backends.cudnn, "conv")
    settings = [backends.cuda.matmul, *((cudnn.conv, cudnn.rnn) if newer else (cudnn,))]
    # Reading the older name fails if the user has set the newer one.
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    before = [getattr(setting, name) for setting in settings]
    try:
        for setting in settings:
            setattr(setting, name, exact)
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setattr(setting, name, value)


class TorchEmbedder:
    """A network on raw pixels, in float32 and evaluation mode."""

    def __init__(self, network: nn.Module, spec: BranchSpec) -> None:
        self._spec = spec
        self._network = network.eval()
        self._device = next(self._network.parameters()).device

    @property
    def spec(self) -> BranchSpec:
        return self._spec

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows."""
        check_images(images, self.spec)
        with torch.inference_mode(), exact_float32():
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
            return np.asarray(self._network(batch).cpu().numpy(), dtype=np.float32)


def embedders(model: CrossViewModel) -> EmbedderPair:
    """Both branches of `model`. Sets the model to evaluation mode."""
    model.eval()
    ground, aerial = (TorchEmbedder(from_pixels(model, branch), model.specs[branch]) for branch in BRANCHES)
    return EmbedderPair(ground, aerial)


def from_pixels(model: CrossViewModel, branch: Branch) -> FromPixels:
    """One branch of `model` with raw pixels as input."""
    return FromPixels(model.branch(branch), model.specs[branch].preprocessing)
