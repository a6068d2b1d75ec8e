"""Initial weights: of a checkpoint, or ImageNet weights of the backbones from torchvision or a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import msgspec
from torch import Tensor, nn

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.training.config import TrainConfig
from geodtr.training.models.cde import CdeConfig
from geodtr.training.models.cde import trunk as cde_trunk
from geodtr.training.models.checkpoint import CheckpointInfo, load_checkpoint
from geodtr.training.models.cvft import CvftConfig
from geodtr.training.models.dsm import DsmConfig
from geodtr.training.models.fusiongan import FusionGanConfig, TwoStreamConfig
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1Config
from geodtr.training.models.geodtr.geodtr import RESNET34, Backbone
from geodtr.training.models.geodtr.geodtr_plus import ConvNextBackbone, ConvNextConfig, ResidualConfig
from geodtr.training.models.importers.fusiongan import read_generator
from geodtr.training.models.importers.sample4geo import in_torchvision_shapes, rename_timm
from geodtr.training.models.importers.weights import check_tensors, read_weights
from geodtr.training.models.l2ltr import L2LTRConfig
from geodtr.training.models.registry import ModelConfig, outline
from geodtr.training.models.safa import SafaConfig, trunk
from geodtr.training.models.sample4geo import Encoder, Sample4GeoConfig
from geodtr.training.models.transgeo.stage_1 import TransGeoConfig
from geodtr.training.models.transgeo.stage_2 import TransGeoStage2Config, begin, first_image, stage_1_config
from geodtr.training.pretrained.transformers import transformer_weights

_PARTS = {"conv1": "0", "bn1": "1", "layer1": "3", "layer2": "4", "layer3": "5", "layer4": "6"}

_MAY_CHANGE = {"imagery", "dropout", "stochastic_depth", "initialisation", "layer_scale", "temperature", "frozen"}
"""Settings that neither shape a network nor change what it computes of an image after training."""

_VGG = {"19": "20", "21": "23", "24": "27", "26": "30", "28": "33"}


@dataclass(frozen=True, slots=True)
class _Pretrained:
    """torchvision's weights that a model's backbones can start from.

    `modules`: where they go in the model; `build` makes the empty module. `rename` gives a tensor's name in the module,
    None for one that it does not have.
    """

    title: str
    weights: Any
    modules: tuple[str, ...]
    build: Callable[[], nn.Module]
    rename: Callable[[str], str | None]


def first_weights(config: TrainConfig) -> Mapping[str, Tensor]:
    """Initial weights by parameter name: of a checkpoint, of pretrained backbones, or none.

    Raises ConfigError when the checkpoint or the pretrained weights are of another network or the download fails, and
    CheckpointError when a file cannot be read or does not hold them.
    """
    if config.recipe.start:
        return _of_checkpoint(config)
    if isinstance(config.model, TransGeoStage2Config):
        raise ConfigError(
            'The model "transgeo-stage2" begins with the weights and the attention map of stage 1. Train that first, '
            "or import its checkpoint, and name it: --set recipe.start=RUN"
        )
    source = config.recipe.pretrained
    if isinstance(config.model, FusionGanConfig) and (config.model.frozen or source != "none"):
        return _of_generator(config)
    if source == "none":
        return {}
    if isinstance(config.model, L2LTRConfig | TransGeoConfig):
        return transformer_weights(config)
    pretrained = _find_pretrained(config.model)
    if pretrained is None:
        raise ConfigError(
            f'recipe.pretrained is "{source}", but there are such weights only for a ResNet-34, ConvNeXt-T, ConvNeXt-B '
            "or VGG-16 of the published sizes, and the model has another one. Set recipe.pretrained=none."
        )
    tensors = _download(pretrained.weights) if source == "imagenet" else _read(Path(source), pretrained.title)
    renamed = {pretrained.rename(name): tensor for name, tensor in tensors.items()}
    weights = in_torchvision_shapes({name: tensor for name, tensor in renamed.items() if name is not None})
    _check(weights, pretrained.build().state_dict(), pretrained.title, source)
    return {f"{module}.{name}": tensor for module in pretrained.modules for name, tensor in weights.items()}


def _of_checkpoint(config: TrainConfig) -> Mapping[str, Tensor]:
    checkpoint, model = load_checkpoint(Path(config.recipe.start)), config.model
    weights = checkpoint.model.state_dict()
    if isinstance(model, TransGeoStage2Config) and not isinstance(checkpoint.info.model, TransGeoStage2Config):
        wanted = {"model": stage_1_config(model), "ground": config.ground, "aerial": first_image(config.aerial)}
        _check_same(checkpoint.info, wanted, f"{config.recipe.start} differs from what stage 2 begins with")
        return begin(weights, model, config.aerial)
    if isinstance(model, FusionGanConfig) and isinstance(checkpoint.info.model, FusionGanStage1Config):
        model = msgspec.structs.replace(checkpoint.info.model, generator=model.generator)
    wanted = {"model": model, "ground": config.ground, "aerial": config.aerial}
    _check_same(checkpoint.info, wanted, f"{config.recipe.start} differs from this run's")
    return weights


def _of_generator(config: TrainConfig) -> Mapping[str, Tensor]:
    path = Path(config.recipe.pretrained)
    if not path.is_file():
        raise ConfigError(
            f'recipe.pretrained is "{path}", but the model "fusiongan" draws tiles with a generator that is trained '
            "already. Name its file: --set recipe.pretrained=generator.safetensors. Or train it (preset "
            "fusiongan-cvusa-stage1) and name its run: --set recipe.start=RUN. Or let one learn with the rest: "
            "--set model.frozen=false --set recipe.pretrained=none"
        )
    weights, network = read_generator(path), outline(config.model, config.ground, config.aerial)
    expected = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("generator.")}
    _check(weights, expected, "generator as this model's", str(path))
    return weights


def _check_same(info: CheckpointInfo, wanted: Mapping[str, msgspec.Struct], what: str) -> None:
    """Compare what the weights were made for. What the images showed, and what acts in training alone, may change."""
    differences = [
        f"{name} is {found} there, {here} here"
        for part, value in wanted.items()
        for name, (found, here) in _differences(part, getattr(info, part), value).items()
    ]
    if differences:
        raise ConfigError(
            f"The network of recipe.start {what}: {'; '.join(differences)}. Name a preset of that network, or state it "
            "by --set."
        )


def _differences(name: str, found: Any, here: Any) -> dict[str, tuple[object, object]]:
    """Values that differ, by setting."""
    if type(found) is not type(here) or not isinstance(found, msgspec.Struct):
        kinds = [each.__struct_config__.tag if isinstance(each, msgspec.Struct) else each for each in (found, here)]
        return {} if found == here else {name: (kinds[0], kinds[1])}
    return {
        setting: values
        for field in found.__struct_fields__
        if field not in _MAY_CHANGE
        for setting, values in _differences(f"{name}.{field}", getattr(found, field), getattr(here, field)).items()
    }


def _find_pretrained(config: ModelConfig) -> _Pretrained | None:
    """None if the backbone is not the network that there are weights for."""
    from torchvision.models import ConvNeXt_Base_Weights, ConvNeXt_Tiny_Weights, ResNet34_Weights, VGG16_Weights

    if isinstance(
        config, L2LTRConfig | TransGeoConfig | CvftConfig | DsmConfig | TwoStreamConfig | FusionGanStage1Config
    ):
        return None
    both = ("ground.backbone", "aerial.backbone")
    if isinstance(config, Sample4GeoConfig):
        whole = Sample4GeoConfig()
        fits = (config.widths, config.blocks) == (whole.widths, whole.blocks)
        base = ConvNeXt_Base_Weights.IMAGENET1K_V1
        pretrained = _Pretrained("ConvNeXt-B", base, ("encoder",), partial(Encoder, config), _convnext_base_name)
    elif isinstance(config, SafaConfig):
        fits = (config.widths, config.convolutions) == (SafaConfig().widths, SafaConfig().convolutions)
        pretrained = _Pretrained("VGG-16", VGG16_Weights.IMAGENET1K_V1, both, partial(trunk, config), _vgg_name)
    elif isinstance(config, CdeConfig):
        fits = (config.widths, config.blocks) == (CdeConfig().widths, CdeConfig().blocks)
        shallow = ResNet34_Weights.IMAGENET1K_V1
        pretrained = _Pretrained("ResNet-34", shallow, both[:1], partial(cde_trunk, config), _shallow_resnet_name)
    elif isinstance(config.backbone, ConvNextConfig):
        backbone, whole_tiny = config.backbone, ConvNextConfig()
        fits = (backbone.widths, backbone.blocks) == (whole_tiny.widths, whole_tiny.blocks)
        tiny = ConvNeXt_Tiny_Weights.IMAGENET1K_V1
        pretrained = _Pretrained("ConvNeXt-T", tiny, both, partial(ConvNextBackbone, backbone), _convnext_tiny_name)
    else:
        fits = config.backbone in (RESNET34, ResidualConfig())
        resnet = ResNet34_Weights.IMAGENET1K_V1
        pretrained = _Pretrained("ResNet-34", resnet, both, partial(Backbone, RESNET34), _resnet_name)
    return pretrained if fits else None


def _vgg_name(name: str) -> str | None:
    """SAFA's dropouts move the numbers of the last five convolutions."""
    part, _, rest = name.partition(".")
    number, _, rest = rest.partition(".")
    return f"{_VGG.get(number, number)}.{rest}" if part == "features" else None


def _resnet_name(name: str) -> str | None:
    part, dot, rest = name.partition(".")
    return None if part == "fc" else f"layers.{_PARTS.get(part, part)}{dot}{rest}"


def _shallow_resnet_name(name: str) -> str | None:
    """CDE cuts it behind the third stage."""
    return None if name.startswith("layer4.") else _resnet_name(name)


def _convnext_tiny_name(name: str) -> str | None:
    """GeoDTR+ leaves out the last downsampling and the last stage."""
    part, _, rest = name.partition(".")
    return f"net.{rest}" if part == "features" and int(rest.partition(".")[0]) < 6 else None


def _convnext_base_name(name: str) -> str | None:
    """torchvision's names, or timm's, as the files of Sample4Geo's first weights have them."""
    if name.startswith(("stem.", "stages.", "head.norm.")):
        return rename_timm(f"model.{name}").removeprefix("encoder.")
    name = name.replace("classifier.0.", "norm.")
    return None if name.startswith(("classifier.", "head.")) else name


def _download(weights: Any) -> Mapping[str, Tensor]:
    """torchvision's file, from its cache if present."""
    try:
        tensors: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise ConfigError(
            f"The ImageNet weights cannot be downloaded ({error}). Download {weights.url} on a machine with a network "
            "and pass the file: --set recipe.pretrained=FILE. Or train without them: --set recipe.pretrained=none."
        ) from None
    return tensors


def _read(path: Path, title: str) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"recipe.pretrained is {str(path)!r}; allowed are none, imagenet, or an existing file.")
    content = read_weights(path)
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} does not hold tensors by name, as torchvision's {title} file does.")
    check_tensors(content, path)
    return content


def _check(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], title: str, source: str) -> None:
    # Files written before PyTorch 0.4 lack these counters, and training does not read them.
    wrong = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    wrong += [name for name in weights if name not in expected or weights[name].shape != expected[name].shape]
    if wrong:
        raise CheckpointError(
            f"{source} does not hold a {title}: {len(wrong)} tensors are missing, unexpected or of another shape, "
            f"first {wrong[0]}."
        )
