"""The registry of models: from a configuration's `name` to a network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.cde import Cde, CdeConfig
from geodtr.training.models.cvft import Cvft, CvftConfig
from geodtr.training.models.dsm import Dsm, DsmConfig
from geodtr.training.models.fusiongan import FusionGan, FusionGanConfig, TwoStream, TwoStreamConfig
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1, FusionGanStage1Config
from geodtr.training.models.geodtr.geodtr import GeoDTR, GeoDTRConfig
from geodtr.training.models.geodtr.geodtr_plus import GeoDTRPlus, GeoDTRPlusConfig
from geodtr.training.models.l2ltr import L2LTR, L2LTRConfig
from geodtr.training.models.safa import Safa, SafaConfig
from geodtr.training.models.sample4geo import Sample4Geo, Sample4GeoConfig
from geodtr.training.models.transgeo.stage_1 import TransGeo, TransGeoConfig
from geodtr.training.models.transgeo.stage_2 import TransGeoStage2, TransGeoStage2Config

Model = (
    GeoDTR
    | GeoDTRPlus
    | Sample4Geo
    | Safa
    | L2LTR
    | TransGeo
    | TransGeoStage2
    | Cvft
    | Dsm
    | Cde
    | TwoStream
    | FusionGan
    | FusionGanStage1
)
ModelConfig = (
    GeoDTRConfig
    | GeoDTRPlusConfig
    | Sample4GeoConfig
    | SafaConfig
    | L2LTRConfig
    | TransGeoConfig
    | TransGeoStage2Config
    | CvftConfig
    | DsmConfig
    | CdeConfig
    | TwoStreamConfig
    | FusionGanConfig
    | FusionGanStage1Config
)
"""All models and their configurations, distinguished by `name`."""

_MODELS: Mapping[type[ModelConfig], Callable[[Any, Preprocessing, Preprocessing], Model]] = {
    GeoDTRConfig: GeoDTR,
    GeoDTRPlusConfig: GeoDTRPlus,
    Sample4GeoConfig: Sample4Geo,
    SafaConfig: Safa,
    L2LTRConfig: L2LTR,
    TransGeoConfig: TransGeo,
    TransGeoStage2Config: TransGeoStage2,
    CvftConfig: Cvft,
    DsmConfig: Dsm,
    CdeConfig: Cde,
    TwoStreamConfig: TwoStream,
    FusionGanConfig: FusionGan,
    FusionGanStage1Config: FusionGanStage1,
}

_DRAWS = {"normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"}
"""Of tensors and of torch.nn.init."""


def build_model(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """A network with freshly initialised weights. Raises ConfigError when it does not fit the input size."""
    if ground.overview or (aerial.overview and not isinstance(config, TransGeoStage2Config)):
        raise ConfigError(
            'Only the aerial branch of the model "transgeo-stage2" takes an overview. Set ground.overview=0, and '
            "aerial.overview=0 for another model."
        )
    return _MODELS[type(config)](config, ground, aerial)


def outline(config: ModelConfig, ground: Preprocessing, aerial: Preprocessing) -> Model:
    """The network on PyTorch's device meta: names, shapes and types, and no memory. Raises ConfigError as above."""
    try:
        with torch.device("meta"), _Undrawn():
            return build_model(config, ground, aerial)
    except (RuntimeError, OverflowError, TypeError) as error:  # what PyTorch raises where sizes overflow 64 bits
        raise ConfigError(f"The model is larger than any memory ({str(error).splitlines()[0]}).") from None


class _Undrawn(TorchFunctionMode):
    """Leaves the initialisation of weights out.

    On the device meta there are no numbers, but to draw them loads torch._dynamo, which takes as long as PyTorch.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func.__name__ in _DRAWS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
