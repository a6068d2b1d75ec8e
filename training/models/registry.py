"""The registry of models: from a configuration's `name` to a network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.cvft import Cvft, CvftConfig
from geodtr.training.models.dsm import Dsm, DsmConfig
from geodtr.training.models.geodtr import GeoDTR, GeoDTRConfig
from geodtr.training.models.geodtr_plus import GeoDTRPlus, GeoDTRPlusConfig
from geodtr.training.models.l2ltr import L2LTR, L2LTRConfig
from geodtr.training.models.safa import Safa, SafaConfig
from geodtr.training.models.sample4geo import Sample4Geo, Sample4GeoConfig
from geodtr.training.models.transgeo import TransGeo, TransGeoConfig

Model = GeoDTR | GeoDTRPlus | Sample4Geo | Safa | L2LTR | TransGeo | Cvft | Dsm
ModelConfig = (
    GeoDTRConfig
    | GeoDTRPlusConfig
    | Sample4GeoConfig
    | SafaConfig
    | L2LTRConfig
    | TransGeoConfig
    | CvftConfig
    | DsmConfig
)
"""All models and their configurations, distinguished by `name`."""

_MODELS: Mapping[type[ModelConfig], Callable[[Any, Preprocessing, Preprocessing], Model]] = {
    GeoDTRConfig: GeoDTR,
    GeoDTRPlusConfig: GeoDTRPlus,
    Sample4GeoConfig: Sample4Geo,
    SafaConfig: Safa,
    L2LTRConfig: L2LTR,
    TransGeoConfig: TransGeo,
    CvftConfig: Cvft,
    DsmConfig: Dsm,
}


def build_model(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """A network with freshly initialised weights. Raises ConfigError when it does not fit the input size."""
    return _MODELS[type(config)](config, ground, aerial)


def outline(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """The network on PyTorch's device meta: names, shapes and types, and no memory. Raises ConfigError as above."""
    try:
        with torch.device("meta"):
            return build_model(config, ground, aerial)
    except (RuntimeError, OverflowError, TypeError) as error:  # what PyTorch raises where sizes overflow 64 bits
        raise ConfigError(f"The model is larger than any memory ({str(error).splitlines()[0]}).") from None
