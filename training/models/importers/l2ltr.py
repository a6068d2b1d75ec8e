"""Importer for checkpoints of the official L2LTR release (NeurIPS 2021).

A file holds two state dicts, `model_grd` and `model_sat`. It does not record the size of the images, whether the aerial
one is polar, and whether panoramas are cut as CVACT's are.
"""

import re
from pathlib import Path

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.spec import PANORAMAS, Preprocessing
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
from geodtr.training.models.l2ltr import L2LTRConfig, positions

GROUND = Preprocessing(height=128, width=512, mean=IMAGENET_MEAN, std=IMAGENET_STD, imagery=PANORAMAS)
AERIAL = Preprocessing(height=128, width=512, polar=True, mean=IMAGENET_MEAN, std=IMAGENET_STD)

_RENAMES = (
    (re.compile(r"^model_grd\.transformer\."), "ground."),
    (re.compile(r"^model_sat\.transformer\."), "aerial."),
    (re.compile(r"\.embeddings\.position_embeddings$"), ".tokens.position"),
    (re.compile(r"\.embeddings\.cls_token$"), ".tokens.learned"),
    (re.compile(r"\.embeddings\.patch_embeddings\."), ".tokens.embedding."),
    (re.compile(r"\.embeddings\.hybrid_model\.root\.conv\."), ".backbone.stem.0."),
    (re.compile(r"\.embeddings\.hybrid_model\.root\.gn\."), ".backbone.stem.1."),
    (re.compile(r"\.downsample\."), ".projection."),
    (re.compile(r"\.gn_proj\."), ".projection_norm."),
    (re.compile(r"\.gn([123])\."), r".norm\1."),
    (re.compile(r"\.encoder\.layer\.(\d+)\."), r".layers.\1."),
    (re.compile(r"\.encoder\.encoder_norm\."), ".norm."),
    (re.compile(r"\.attention_norm_1\."), ".attention_norm."),
    (re.compile(r"\.attention_norm_2\."), ".keys_norm."),
    (re.compile(r"\.ffn_norm\."), ".feed_forward_norm."),
    (re.compile(r"\.attn\."), ".attention."),
    (re.compile(r"\.ffn\.fc1\."), ".feed_forward.0."),
    (re.compile(r"\.ffn\.fc2\."), ".feed_forward.3."),
)
_UNIT = re.compile(r"\.embeddings\.hybrid_model\.body\.block(\d+)\.unit(\d+)\.")


class L2LTRImporter(Importer):
    """L2LTR, with a residual network in front."""

    title = "L2LTR"
    config = L2LTRConfig
    marks = ("model_grd.", "model_sat.")
    renames = _RENAMES

    def rename(self, name: str) -> str:
        # Stages and units count from 0 here.
        return super().rename(
            _UNIT.sub(lambda found: f".backbone.stages.{int(found[1]) - 1}.{int(found[2]) - 1}.", name)
        )

    def refuse(self, tensors: Tensors, network: Network | None, path: Path) -> None:
        """The release's plain transformers, whose patches are larger than a position."""
        del network
        embedding = tensors.get("ground.tokens.embedding.weight")
        if embedding is not None and embedding.ndim == 4 and embedding.shape[-1] > 1:
            raise CheckpointError(
                f"{path} is a checkpoint of L2LTR without a residual network in front, which is not supported. Train "
                "it with --model_type R50-ViT-B_16, as the release's published ones."
            )

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        del parameters, notice  # the release writes none, and nothing is assumed
        require(tensors, {"ground.tokens.position": 3, "aerial.tokens.position": 3}, path, self.title)
        stages = ("ground.backbone.stages.0", "ground.backbone.stages.1", "ground.backbone.stages.2")
        first, second, third = (first_size(tensors, f"{stage}.0.norm3.weight") for stage in stages)
        one, two, three = (max(1, count(tensors, rf"{re.escape(stage)}\.(\d+)\.")) for stage in stages)
        width = tensors["ground.tokens.position"].shape[2]
        config = L2LTRConfig(
            stem=first_size(tensors, "ground.backbone.stem.1.weight"),
            widths=(first, second, third),
            units=(one, two, three),
            width=width,
            layers=max(1, count(tensors, r"ground\.layers\.(\d+)\.")),
            heads=max(1, width // HEAD_WIDTH),
            feed_forward=first_size(tensors, "ground.layers.0.feed_forward.0.weight"),
        )
        ground, aerial = (
            match_input(tensors[f"{branch}.tokens.position"].shape[1] - 1, (known,), positions, path)
            for branch, known in (("ground", GROUND), ("aerial", AERIAL))
        )
        return Network(config, ground, aerial, unknown=_unknown(config, path))


def _unknown(config: L2LTRConfig, path: Path) -> str:
    sizes = settings_of(config, L2LTRConfig())
    return (
        f"{path} is a checkpoint of L2LTR, which does not record what its images are: 128x512 and 256x256 have the "
        "same weights. Name them: --preset l2ltr-cvusa or --preset l2ltr-cvact (polar), or --preset "
        "l2ltr-cvusa-square (aerial images without polar transform; of CVACT with --set ground.imagery.aspect=2 --set "
        f"aerial.imagery.tile_metres=144){'; here with' + sizes if sizes else ''}"
    )
