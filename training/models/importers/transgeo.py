"""Importer for checkpoints of the official TransGeo release (CVPR 2022), of stage 1.

Keys are `query_net...` (ground) and `reference_net...` (aerial), with the names of timm's distilled DeiT. A file does
not record whether panoramas are cut as CVACT's are, nor its stage, which shows in the number of aerial patches.
"""

import re
from pathlib import Path

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
from geodtr.training.models.transgeo import LEARNED, TransGeoConfig, positions


def _input(height: int, width: int, imagery: Imagery = ANY_IMAGES) -> Preprocessing:
    return Preprocessing(height=height, width=width, mean=IMAGENET_MEAN, std=IMAGENET_STD, imagery=imagery)


GROUND, VIGOR_GROUND = _input(112, 616, PANORAMAS), _input(320, 640, PANORAMAS)
AERIAL, VIGOR_AERIAL = _input(256, 256), _input(320, 320)
STAGE_2 = {(266, 400): "CVUSA or CVACT", (800, 625): "VIGOR"}
"""Patches of both branches in stage 2: aerial images are larger, and the network sees 64 % of their patches."""

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
    """TransGeo's stage 1, with any DeiT of timm's distilled form."""

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

        def count_patches(preprocessing: Preprocessing) -> int:
            return positions(config.patch, preprocessing)

        vigor = aerial == count_patches(VIGOR_AERIAL)
        whole = settings_of(config, TransGeoConfig())
        unknown = (
            f"{path} is a checkpoint of TransGeo, which does not record how panoramas are cut. Name it: --preset "
            f"transgeo-cvusa or --preset transgeo-cvact{'; here with' + whole if whole else ''}"
        )
        return Network(
            config,
            match_input(ground, (GROUND, VIGOR_GROUND), count_patches, path),
            match_input(aerial, (AERIAL, VIGOR_AERIAL), count_patches, path),
            unknown=None if vigor else unknown,
        )

    def refuse(self, tensors: Tensors, network: Network | None, path: Path) -> None:
        """Stage 2 needs another network's attention maps to choose the patches that it sees."""
        patches = _patches(tensors)
        if patches not in STAGE_2 or (network is not None and _patches_of(network) == patches):
            return
        raise CheckpointError(
            f"{path} is a checkpoint of TransGeo's stage 2 ({STAGE_2[patches]}): of {patches[1]} aerial patches it "
            "sees 64 %, chosen by maps of stage 1. Stage 2 is not supported. Import the checkpoint of stage 1."
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
