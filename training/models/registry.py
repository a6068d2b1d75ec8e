"""The models there are: how a configuration's `name` becomes a network."""

from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.geodtr import GeoDTR, GeoDTRConfig

Model = GeoDTR
ModelConfig = GeoDTRConfig
"""The family's models and their configurations, told apart by their `name`: a second one makes each a union."""


def build_model(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """A network with fresh weights. Raises ConfigError when its parts do not fit its input size."""
    return GeoDTR(config, ground, aerial)
