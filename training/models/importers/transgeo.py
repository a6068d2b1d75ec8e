"""Importer for checkpoints of the official TransGeo release (CVPR 2022), of either stage.

Keys are `query_net...` (ground) and `reference_net...` (aerial), with the names of timm's distilled DeiT. A file does
not record whether panoramas are cut as CVACT's are, nor its stage, which shows in the number of aerial patches. Stage 2
needs stage 1's file as well, for its attention map.
"""

import re
from functools import partial
from pathlib import Path

import msgspec
import torch

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.spec import ANY_IMAGES, PANORAMAS, Imagery, Preprocessing
from geodtr.training.models.backbones.convnext import IMAGENET_MEAN, IMAGENET_STD
from geodtr.training.models.importers.base import (
    HEAD_WIDTH,
    Importer,
    Network,
    Notice,
    Tensors,
    count,
    first_size,
    match_input,
    require,
    settings_of,
)
from geodtr.training.models.registry import ModelConfig
from geodtr.training.models.transgeo.stage_1 import LEARNED, TransGeoConfig, positions
from geodtr.training.models.transgeo.stage_2 import TransGeoStage2Config, first_image, map_weights, stage_1_config


def _input(height: int, width: int, imagery: Imagery = ANY_IMAGES, overview: int = 0) -> Preprocessing:
    return Preprocessing(
        height=height, width=width, mean=IMAGENET_MEAN, std=IMAGENET_STD, imagery=imagery, overview=overview
    )


GROUND, VIGOR_GROUND = _input(112, 616, PANORAMAS), _input(320, 640, PANORAMAS)
AERIAL, VIGOR_AERIAL = _input(256, 256), _input(320, 320)
STAGE_2 = {(266, 400): _input(320, 320, overview=256), (800, 625): _input(400, 400, overview=320)}
"""Aerial inputs of stage 2, on CVUSA or CVACT and on VIGOR, by the patches of both branches."""
_VIGOR_STAGE_1 = (800, 400)  # as many aerial patches as stage 2 has on CVUSA

_RENAMES = (
    (re.compile(r"^query_net\."), "ground."),
    (re.compile(r"^reference_net\."), "aerial."),
    (re.compile(r"\.pos_embed$"), ".tokens.position"),
    (re.compile(r"\.patch_embed\.proj\."), ".tokens.embedding."),
    (re.compile(r"\.blocks\.(\d+)\.norm1\."), r".layers.\1.attention_norm."),
    (re.compile(r"\.blocks\.(\d+)\.norm2\."), r".layers.\1.feed_forward_norm."),
    (re.compile(r"\.blocks\.(\d+)\.attn\.proj\."), r".layers.\1.attention.out."),
    (re.compile(r"\.blocks\.(\d+)\.attn\.qkv\."), r".layers.\1.attention.qkv."),
    (re.compile(r"\.blocks\.(\d+)\.mlp\.fc1\."), r".layers.\1.feed_forward.0."),
    (re.compile(r"\.blocks\.(\d+)\.mlp\.fc2\."), r".layers.\1.feed_forward.3."),
    (re.compile(r"\.head_dist\."), ".distillation_head."),
)


class TransGeoImporter(Importer):
    """TransGeo's stages, with any DeiT of timm's distilled form."""

    title = "TransGeo"
    config = TransGeoConfig
    marks = ("query_net.", "reference_net.")
    renames = _RENAMES

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        del parameters, notice  # the release writes none, and nothing is assumed
        wanted = {"ground.tokens.position": 3, "aerial.tokens.position": 3, "ground.tokens.embedding.weight": 4}
        require(tensors, wanted, path, self.title)
        patches = tensors["ground.tokens.embedding.weight"]
        config = TransGeoConfig(
            patch=max(1, patches.shape[-1]),
            width=max(1, patches.shape[0]),
            layers=max(1, count(tensors, r"ground\.layers\.(\d+)\.")),
            heads=max(1, patches.shape[0] // HEAD_WIDTH),
            feed_forward=first_size(tensors, "ground.layers.0.feed_forward.0.weight"),
            descriptor_size=first_size(tensors, "ground.head.weight"),
        )
        ground, aerial = _patches(tensors)
        count_patches = partial(positions, config.patch)
        ground_input = match_input(ground, (GROUND, VIGOR_GROUND), count_patches, path)
        larger = STAGE_2.get((ground, aerial))
        whole = settings_of(config, TransGeoConfig())
        end = "" if larger is None else "-stage2"
        unknown = (
            f"{path} is a checkpoint of TransGeo, which does not record how panoramas are cut. Name it: --preset "
            f"transgeo-cvusa{end} or --preset transgeo-cvact{end}{'; here with' + whole if whole else ''}"
        )
        return Network(
            config if larger is None else TransGeoStage2Config(**msgspec.structs.asdict(config)),
            ground_input,
            larger or match_input(aerial, (AERIAL, VIGOR_AERIAL), count_patches, path),
            unknown=None if ground_input == VIGOR_GROUND else unknown,
        )

    def refuse(self, tensors: Tensors, network: Network | None, path: Path) -> None:
        """One stage for the other: their files differ in the number of aerial patches alone."""
        if network is None or _patches(tensors) == _patches_of(network):
            return
        (_, found), (_, wanted) = _patches(tensors), _patches_of(network)
        first = self.first_stage(network)
        if first is not None and found == _patches_of(first)[1]:
            raise CheckpointError(
                f"{path} is a checkpoint of TransGeo's stage 1: it has {found} aerial patches, and stage 2 has "
                f"{wanted}. Give it with --stage-1, and stage 2's file first."
            )
        of_stage_2 = found in {aerial for _, aerial in STAGE_2} and _patches(tensors) != _VIGOR_STAGE_1
        if first is None and of_stage_2:
            raise CheckpointError(
                f"{path} is a checkpoint of TransGeo's stage 2: it has {found} aerial patches, and stage 1 has "
                f"{wanted}. Give stage 1's file here; to import stage 2, add --stage-1 FILE, and -stage2 to the preset."
            )

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        """Both learned tokens as one tensor; queries, keys and values as three."""
        del config
        converted = dict(tensors)
        for branch in BRANCHES:
            names = [f"{branch}.{kind}_token" for kind in ("cls", "dist")]
            tokens = [tensors[name] for name in names if name in tensors]
            if len(tokens) == LEARNED and tokens[0].ndim == 3 and tokens[0].shape == tokens[1].shape:
                converted[f"{branch}.tokens.learned"] = torch.cat(tokens, dim=1)
                for name in names:
                    del converted[name]
        for name, tensor in tensors.items():
            if ".attention.qkv." in name and tensor.ndim and tensor.shape[0] % 3 == 0:
                del converted[name]
                for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    converted[name.replace(".qkv.", f".{part}.")] = rows
        return converted

    def first_stage(self, network: Network) -> Network | None:
        if not isinstance(network.config, TransGeoStage2Config):
            return None
        return Network(stage_1_config(network.config), network.ground, first_image(network.aerial))

    def from_first_stage(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        assert isinstance(config, TransGeoStage2Config), "the caller asked for the first stage"
        return map_weights(tensors, config.layers)


def _patches(tensors: Tensors) -> tuple[int, int]:
    """Of both branches, by their position tables."""
    ground, aerial = (
        tensors[name].shape[1] - LEARNED if name in tensors and tensors[name].ndim == 3 else 0
        for name in ("ground.tokens.position", "aerial.tokens.position")
    )
    return ground, aerial


def _patches_of(network: Network) -> tuple[int, int]:
    assert isinstance(network.config, TransGeoConfig), "the caller compares the kinds"
    patch = network.config.patch
    return positions(patch, network.ground), positions(patch, network.aerial)
