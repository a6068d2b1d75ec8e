"""Raw-pixel matching: what a data set gives away without any learning. Publish it beside every score."""

from math import prod

import msgspec
import numpy as np

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import BranchSpec, Descriptors, EmbedderPair, Images


class PixelEmbedder:
    """The preprocessed pixels themselves as a descriptor, freed of their mean, at unit length."""

    def __init__(self, spec: BranchSpec) -> None:
        self.spec = msgspec.structs.replace(spec, descriptor_size=prod(spec.preprocessing.shape), scorer=None)

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, H*W*3], unit rows; an image of one colour gives a row of zeros."""
        rows = images.reshape(len(images), -1).astype(np.float32)
        rows -= rows.mean(axis=1, keepdims=True)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows


def pixel_baseline(model: EmbedderPair) -> EmbedderPair:
    """The baseline on a model's own inputs. Raises ConfigError when its branches take images of different sizes."""
    ground, aerial = PixelEmbedder(model.ground.spec), PixelEmbedder(model.aerial.spec)
    if ground.spec.descriptor_size != aerial.spec.descriptor_size:
        raise ConfigError("Pixels can be compared only when both branches take images of one size.")
    return EmbedderPair(ground, aerial)
