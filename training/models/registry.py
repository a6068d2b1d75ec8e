"""The registry of models: from a configuration's `name` to a network."""

from collections.abc import Callable, Mapping
from typing import Any

from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.geodtr import GeoDTR, GeoDTRConfig
from geodtr.training.models.geodtr_plus import GeoDTRPlus, GeoDTRPlusConfig
from geodtr.training.models.safa import Safa, SafaConfig
from geodtr.training.models.sample4geo import Sample4Geo, Sample4GeoConfig

Model = GeoDTR | GeoDTRPlus | Sample4Geo | Safa
ModelConfig = GeoDTRConfig | GeoDTRPlusConfig | Sample4GeoConfig | SafaConfig
"""All models and their configurations, distinguished by `name`."""

_MODELS: Mapping[type[ModelConfig], Callable[[Any, Preprocessing, Preprocessing], Model]] = {
    GeoDTRConfig: GeoDTR,
    GeoDTRPlusConfig: GeoDTRPlus,
    Sample4GeoConfig: Sample4Geo,
    SafaConfig: Safa,
}


def build_model(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """A network with freshly initialised weights. Raises ConfigError when it does not fit the input size."""
    return _MODELS[type(config)](config, ground, aerial)
