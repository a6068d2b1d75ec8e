"""What a branch takes and gives: its preprocessing, its input and descriptor shapes.

These values travel with the weights, from the training configuration through the checkpoint into the bundle's
manifest, so that an engine cannot be fed differently from how it was trained.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.names import Branch

Images = NDArray[np.uint8]
"""uint8 RGB, [H, W, 3] or [B, H, W, 3]."""

Descriptors = NDArray[np.float32]
"""float32 [N, D], rows of unit length."""

INPUT, OUTPUT = "images", "descriptors"
"""The names of an engine's one input and one output."""


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a decoded image becomes a network input of `height` x `width` pixels.

    With `polar`, a square aerial tile is unrolled by the polar transform; otherwise the whole image is resized.
    `resize`, `colour`, `layout` and `dtype` have one legal value today: they are written down so that a bundle made
    under another rule is refused instead of being misread. `mean` and `std` (of pixels scaled to 0..1, one value for
    all channels) are applied inside the network's graph, never by the caller.
    """

    height: int
    width: int
    polar: bool = False
    mean: float = 0.5
    std: float = 0.5
    resize: Literal["pillow-bilinear-antialias"] = "pillow-bilinear-antialias"
    colour: Literal["RGB"] = "RGB"
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"


class BranchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch's boundary: images [B, height, width, 3] in, descriptors [B, descriptor_size] out."""

    branch: Branch
    preprocessing: Preprocessing
    descriptor_size: int


class Embedder(Protocol):
    """One branch, ready to run; PyTorch and every backend's engine stand behind it alike."""

    @property
    def spec(self) -> BranchSpec: ...

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows; B is free."""
        ...


@dataclass(frozen=True, slots=True)
class EmbedderPair:
    """Both branches of one model."""

    ground: Embedder
    aerial: Embedder

    def __getitem__(self, branch: Branch) -> Embedder:
        return self.ground if branch == "ground" else self.aerial
