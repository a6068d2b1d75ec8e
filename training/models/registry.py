"""The registry of models: from a configuration's `name` to a network."""

from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.geodtr import GeoDTR, GeoDTRConfig

Model = GeoDTR
ModelConfig = GeoDTRConfig
"""All models and their configurations, distinguished by `name`; with a second model, each becomes a union."""


def build_model(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """A network with freshly initialised weights. Raises ConfigError when it does not fit the input size."""
    return GeoDTR(config, ground, aerial)
