"""The reference model behind the `Embedder` protocol, and the raw-pixel boundary that it shares with every export."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import BranchSpec, Descriptors, EmbedderPair, Images, Preprocessing
from geodtr.training.models.base import CrossViewModel


class FromPixels(nn.Module):
    """uint8 [B, H, W, 3] -> unit descriptors [B, D]: normalisation belongs to the graph, so that no caller can err."""

    def __init__(self, branch: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.branch = branch
        self.mean, self.std = preprocessing.mean, preprocessing.std

    def forward(self, images: Tensor) -> Tensor:
        descriptors: Tensor = self.branch(normalise(images, self.mean, self.std))
        return descriptors


def normalise(images: Tensor, mean: float, std: float) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W], pixels scaled to 0..1, minus mean, over std.

    The cast comes first: TensorRT takes uint8 as the input of a network alone, cast at once (its guide, Types and
    Precision), and refuses to transpose it.
    """
    return (images.float().permute(0, 3, 1, 2) / 255 - mean) / std


@contextmanager
def exact_float32() -> Iterator[None]:
    """Let a GPU compute float32 as float32. From Ampere on, PyTorch's default for convolutions is TF32, which keeps 10
    bits of each factor: too few for what others are measured against.
    """
    backends: Any = torch.backends  # its stubs lack what PyTorch 2.9 has
    cudnn, newer = backends.cudnn, hasattr(backends.cudnn, "conv")
    places = [backends.cuda.matmul, *((cudnn.conv, cudnn.rnn) if newer else (cudnn,))]
    # Asking by the older name fails where a user has set the newer one.
    name, exact = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    before = [getattr(place, name) for place in places]
    try:
        for place in places:
            setattr(place, name, exact)
        yield
    finally:
        for place, old in zip(places, before, strict=True):
            setattr(place, name, old)


class TorchEmbedder:
    """A network that takes raw pixels, in float32 and evaluation mode."""

    def __init__(self, network: nn.Module, spec: BranchSpec) -> None:
        self._spec = spec
        self._network = network.eval()
        self._device = next(self._network.parameters()).device

    @property
    def spec(self) -> BranchSpec:
        return self._spec

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows."""
        with torch.inference_mode(), exact_float32():
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
            return np.asarray(self._network(batch).cpu().numpy(), dtype=np.float32)


def embedders(model: CrossViewModel) -> EmbedderPair:
    """Both branches of `model`, which is put into evaluation mode."""
    model.eval()
    ground, aerial = (TorchEmbedder(from_pixels(model, branch), model.specs[branch]) for branch in BRANCHES)
    return EmbedderPair(ground, aerial)


def from_pixels(model: CrossViewModel, branch: Branch) -> FromPixels:
    """One branch of `model` that takes raw pixels."""
    return FromPixels(model.branch(branch), model.specs[branch].preprocessing)
