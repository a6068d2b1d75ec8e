"""The registry of models: from a configuration's `name` to a network."""

import torch

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.geodtr import GeoDTR, GeoDTRConfig

Model = GeoDTR
ModelConfig = GeoDTRConfig
"""All models and their configurations, distinguished by `name`; with a second model, each becomes a union."""


def build_model(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """A network with freshly initialised weights. Raises ConfigError when it does not fit the input size."""
    return GeoDTR(config, ground, aerial)


def outline(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """The network on PyTorch's device meta: names, shapes and types, and no memory. Raises ConfigError as above."""
    try:
        with torch.device("meta"):
            return build_model(config, ground, aerial)
    except (RuntimeError, OverflowError, TypeError) as error:  # what PyTorch raises where sizes overflow 64 bits
        raise ConfigError(f"The model is larger than any memory ({str(error).splitlines()[0]}).") from None
