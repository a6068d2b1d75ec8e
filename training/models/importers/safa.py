"""Importer for checkpoints of SAFA in the PyTorch form of GeoDTR's group.

Keys are `backbone_grd.0...`, `spatial_aware_sat...`. A file does not record how pixels were normalised. The TensorFlow
checkpoints of the original release hold another network.
"""

import re
from pathlib import Path

import msgspec

from geodtr.training.models.base import Count
from geodtr.training.models.importers.base import (
    Importer,
    Network,
    Notice,
    Tensors,
    check_stated,
    first_size,
    match_input,
    read_parameters,
    require,
)
from geodtr.training.models.importers.geodtr import AERIAL_POLAR, AERIAL_SQUARE, GROUND
from geodtr.training.models.safa import SafaConfig, positions

_RENAMES = (
    (re.compile(r"^backbone_grd\.0\."), "ground.backbone."),
    (re.compile(r"^backbone_sat\.0\."), "aerial.backbone."),
    (re.compile(r"^spatial_aware_grd\."), "ground.layout."),
    (re.compile(r"^spatial_aware_sat\."), "aerial.layout."),
)
_FIRST_OF_STAGE = (0, 5, 10, 17, 27)


class _Parameters(msgspec.Struct, frozen=True):
    """The training options that describe the network, by the release's names; others are ignored."""

    SAFA_heads: Count | None = None
    no_polar: bool | None = None


class SafaImporter(Importer):
    """SAFA, with VGG-16's convolutions."""

    title = "SAFA"
    config = SafaConfig
    marks = ("spatial_aware_grd.", "spatial_aware_sat.")
    renames = _RENAMES

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        options = read_parameters(parameters, _Parameters)
        require(tensors, {"ground.layout.w1": 3, "aerial.layout.w1": 3}, path, self.title)
        first, second, third, fourth, fifth = (
            first_size(tensors, f"ground.backbone.{index}.weight") for index in _FIRST_OF_STAGE
        )
        config = SafaConfig(
            widths=(first, second, third, fourth, fifth), descriptors=tensors["ground.layout.w1"].shape[2]
        )
        ground = match_input(tensors["ground.layout.w1"].shape[0], (GROUND,), positions, path)
        aerial = match_input(tensors["aerial.layout.w1"].shape[0], (AERIAL_POLAR, AERIAL_SQUARE), positions, path)
        check_stated(options, {"SAFA_heads": config.descriptors, "no_polar": not aerial.polar}, path)
        notice(
            "the file does not tell how pixels were normalised: mean and std 0.5 were assumed. For ImageNet's: "
            '--preset safa-cvusa --set "ground.mean=[0.485, 0.456, 0.406]" --set "ground.std=[0.229, 0.224, 0.225]", '
            "and the same for aerial"
        )
        return Network(config, ground, aerial)
