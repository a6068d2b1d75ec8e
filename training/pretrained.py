"""Initial weights: of a checkpoint, or ImageNet weights of the backbones from torchvision or a file."""

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

from torch import Tensor
from torchvision.models import ResNet34_Weights

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.names import BRANCHES
from geodtr.training.config import TrainConfig
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.geodtr import RESNET34, Backbone, BackboneConfig
from geodtr.training.models.weights import check_tensors, read_weights

_PARTS = {"conv1": "0", "bn1": "1", "layer1": "3", "layer2": "4", "layer3": "5", "layer4": "6"}


def read_backbone(source: str, config: BackboneConfig) -> Mapping[str, Tensor]:
    """Backbone weights by parameter name; empty if `source` is none.

    `source` is none, imagenet, or a file of torchvision's ResNet-34. Raises ConfigError when the backbone is not a
    ResNet-34 or the download fails, CheckpointError when the file holds other weights.
    """
    if source == "none":
        return {}
    if config != RESNET34:
        raise ConfigError(
            f'recipe.pretrained is "{source}", a ResNet-34, but model.backbone is another network. '
            "Set recipe.pretrained=none."
        )
    tensors = _download() if source == "imagenet" else _read(Path(source))
    weights = {_rename(name): tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    _check(weights, source)
    return weights


def first_weights(config: TrainConfig) -> Mapping[str, Tensor]:
    """Initial weights by parameter name: of a checkpoint, of pretrained backbones, or none.

    Raises ConfigError when the checkpoint holds another network, and CheckpointError when it cannot be read.
    """
    if not config.recipe.start:
        backbone = read_backbone(config.recipe.pretrained, config.model.backbone)
        return {f"{branch}.backbone.{name}": tensor for branch in BRANCHES for name, tensor in backbone.items()}
    checkpoint = load_checkpoint(Path(config.recipe.start))
    for name in ("model", "ground", "aerial"):
        if getattr(checkpoint.info, name) != getattr(config, name):
            raise ConfigError(f"The network of recipe.start {config.recipe.start} differs from this run's in {name}.")
    return checkpoint.model.state_dict()


def _download() -> Mapping[str, Tensor]:
    """torchvision's file, from its cache if present."""
    weights = ResNet34_Weights.IMAGENET1K_V1
    try:
        tensors: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise ConfigError(
            f"The ImageNet weights cannot be downloaded ({error}). Download {weights.url} on a machine with a network "
            "and pass the file: --set recipe.pretrained=FILE. Or train without them: --set recipe.pretrained=none."
        ) from None
    return tensors


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"recipe.pretrained is {str(path)!r}; allowed are none, imagenet, or an existing file.")
    content = read_weights(path)
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} does not hold tensors by name, as torchvision's ResNet-34 file does.")
    check_tensors(content, path)
    return content


def _rename(name: str) -> str:
    part, dot, rest = name.partition(".")
    return f"layers.{_PARTS.get(part, part)}{dot}{rest}"


def _check(weights: Mapping[str, Tensor], source: str) -> None:
    expected = Backbone(RESNET34).state_dict()
    # Files written before PyTorch 0.4 lack these counters, and training does not read them.
    wrong = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    wrong += [name for name in weights if name not in expected or weights[name].shape != expected[name].shape]
    if wrong:
        raise CheckpointError(
            f"{source} does not hold a ResNet-34: {len(wrong)} tensors are missing, unexpected or of another shape, "
            f"first {wrong[0]}."
        )
