"""Importer for checkpoints of the official Sample4Geo release (ICCV 2023).

A file is a bare state dict: `logit_scale`, and `model.` with the names of timm's ConvNeXt. It does not record the
size of the images.
"""

import re
from pathlib import Path

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
_BLOCK = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5", "gamma": "layer_scale"}


class Sample4GeoImporter(Importer):
    """Sample4Geo, with any ConvNeXt of timm's plain form."""

    title = "Sample4Geo"
    config = Sample4GeoConfig
    marks = ("model.stem.", "model.stages.")

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
        unknown = (
            f"{path} is a checkpoint of Sample4Geo, which does not record the size of its images. Name it: --preset "
            "sample4geo-cvusa (for CVUSA and CVACT), --preset sample4geo-vigor or --preset sample4geo-university"
            + settings_of(config, Sample4GeoConfig())
        )
        return Network(config, GROUND, AERIAL, unknown=unknown)

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        del config
        return with_layer_scales(tensors)


def with_layer_scales(tensors: Tensors) -> Tensors:
    """Layer scales as torchvision keeps them, with two axes of size 1 behind timm's one."""
    return {
        name: tensor[:, None, None] if name.endswith(".layer_scale") and tensor.ndim == 1 else tensor
        for name, tensor in tensors.items()
    }


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
