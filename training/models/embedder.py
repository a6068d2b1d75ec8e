"""The reference model behind the `Embedder` protocol, and the raw-pixel boundary that it shares with every export."""

import numpy as np
import torch
from torch import Tensor, nn

from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import BranchSpec, Descriptors, EmbedderPair, Images, Preprocessing
from geodtr.training.models.family import CrossViewModel


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
        with torch.inference_mode():
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
