"""Importer for checkpoints of the official Sample4Geo release (ICCV 2023).

A file is a bare state dict: `logit_scale`, and `model.` with the names of timm's ConvNeXt. It does not record the
size of the images, nor what they show.
"""

import re
from pathlib import Path

from torch import Tensor

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.backbones.convnext import IMAGENET_MEAN, IMAGENET_STD
from geodtr.training.models.importers.base import (
    Importer,
    Network,
    Notice,
    Tensors,
    count,
    first_size,
    require,
    settings_of,
)
from geodtr.training.models.registry import ModelConfig
from geodtr.training.models.sample4geo import Sample4GeoConfig


def _input(height: int, width: int) -> Preprocessing:
    return Preprocessing(height=height, width=width, mean=IMAGENET_MEAN, std=IMAGENET_STD, resize="opencv-linear-exact")


GROUND, AERIAL = _input(140, 768), _input(384, 384)

_STAGE = re.compile(r"^model\.stages\.(\d+)\.(downsample|blocks)\.(.*)$")
_OTHER = re.compile(r"^model\.(?!head\.fc\.)|\.mlp\.grn\.")
"""What only other encoders have, once a plain one's names are this project's; a classifier is a strange key."""
_WIDEST = 3072
"""Channels of timm's convnext_xxlarge, the one with 1e-5 in its norms; others have 1e-6. Source: timm's ConvNeXt."""
_BLOCK = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5", "gamma": "layer_scale"}


class Sample4GeoImporter(Importer):
    """Sample4Geo, with any ConvNeXt of timm's plain form."""

    title = "Sample4Geo"
    config = Sample4GeoConfig
    marks = ("model.stem.", "model.stages.", "logit_scale")

    def rename(self, name: str) -> str:
        return rename_timm(name)

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        del parameters, notice  # the release writes none, and nothing is assumed
        require(tensors, {"encoder.features.0.0.weight": 4, "encoder.norm.weight": 1}, path, self.title)
        stages = range(1, 2 * count(tensors, r"encoder\.features\.(\d*[13579])\."), 2)
        config = Sample4GeoConfig(
            widths=tuple(first_size(tensors, f"encoder.features.{stage}.0.layer_scale") for stage in stages),
            blocks=tuple(count(tensors, rf"encoder\.features\.{stage}\.(\d+)\.") for stage in stages),
        )
        sizes = settings_of(config, Sample4GeoConfig())
        unknown = (
            f"{path} is a checkpoint of Sample4Geo, which does not record what its images are. Name them: --preset "
            "sample4geo-cvusa, --preset sample4geo-cvact, --preset sample4geo-vigor or --preset sample4geo-university"
            f"{'; here with' + sizes if sizes else ''}"
        )
        return Network(config, GROUND, AERIAL, unknown=unknown)

    def refuse(self, tensors: Tensors, network: Network | None, path: Path) -> None:
        """Another encoder: the release builds any that timm has."""
        del network
        other = next((name for name in tensors if _OTHER.search(name)), None)
        norm = tensors.get("encoder.norm.weight")
        if other is None and norm is not None and norm.numel() == _WIDEST:
            other = f"a descriptor of {_WIDEST} numbers, convnext_xxlarge's, whose norms have another epsilon"
        if other is not None:
            raise CheckpointError(
                f"{path} is a checkpoint of Sample4Geo with another encoder than timm's plain ConvNeXt, which alone is "
                f"imported: it holds {other}."
            )

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        del config
        return in_torchvision_shapes(tensors)


def in_torchvision_shapes(tensors: Tensors) -> Tensors:
    """Layer scales with two axes of size 1 behind timm's one, and linear maps without the two that they have in timm's
    small networks, atto to nano.
    """
    return {name: _in_torchvision_shape(name, tensor) for name, tensor in tensors.items()}


def _in_torchvision_shape(name: str, tensor: Tensor) -> Tensor:
    if name.endswith(".layer_scale") and tensor.ndim == 1:
        return tensor[:, None, None]
    pointwise = name.endswith((".block.3.weight", ".block.5.weight")) and tuple(tensor.shape[2:]) == (1, 1)
    return tensor.flatten(1) if pointwise else tensor


def rename_timm(name: str) -> str:
    """`model.stages.1.blocks.0.mlp.fc1.bias` -> `encoder.features.3.0.block.3.bias`."""
    name = re.sub(r"^model\.stem\.", "encoder.features.0.", name)
    name = re.sub(r"^model\.head\.norm\.", "encoder.norm.", name)
    match = _STAGE.match(name)
    if match is None:
        return name
    stage, part, rest = int(match[1]), match[2], match[3]
    if part == "downsample":
        return f"encoder.features.{2 * stage}.{rest}"
    block, _, rest = rest.partition(".")
    for theirs, ours in _BLOCK.items():
        if rest == theirs or rest.startswith(f"{theirs}."):
            rest = ours + rest.removeprefix(theirs)
            break
    return f"encoder.features.{2 * stage + 1}.{block}.{rest}"
