"""Importer for checkpoints of SAFA in the PyTorch form of GeoDTR's group.

Keys are `backbone_grd.0...`, `spatial_aware_sat...`. A file does not record how pixels were normalised. The TensorFlow
checkpoints of the original release hold another network.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from geodtr.training.models.base import Count
from geodtr.training.models.importers.base import (
    Importer,
    Network,
    Notice,
    Tensors,
    check_weights,
    first_size,
    match_input,
    read_parameters,
    require,
    settings_of,
)
from geodtr.training.models.importers.geodtr import AERIAL_POLAR, AERIAL_SQUARE, GROUND, panoramas_of
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
    dataset: str | None = None


class SafaImporter(Importer):
    """SAFA, with VGG-16's convolutions."""

    title = "SAFA"
    config = SafaConfig
    marks = ("spatial_aware_grd.", "spatial_aware_sat.")
    renames = _RENAMES
    parameters = _Parameters

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
        network = Network(config, panoramas_of(options.dataset, ground, notice), aerial)
        check_weights(options, self.stated(network), path)
        like_this = settings_of(config, SafaConfig()) + settings_of(network.ground, GROUND, "ground")
        notice(
            "the file does not tell how pixels were normalised: mean and std 0.5 were assumed. For ImageNet's: "
            '--preset safa-cvusa --set "ground.mean=[0.485, 0.456, 0.406]" --set "ground.std=[0.229, 0.224, 0.225]", '
            f"and the same for aerial{like_this}{settings_of(aerial, AERIAL_POLAR, 'aerial')}"
        )
        return network

    def stated(self, network: Network) -> Mapping[str, object]:
        assert isinstance(network.config, SafaConfig), "the caller compares the kinds"
        return {"SAFA_heads": network.config.descriptors, "no_polar": not network.aerial.polar}
