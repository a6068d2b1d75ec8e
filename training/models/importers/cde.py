"""Importer for checkpoints of the official CDE release (CVPR 2021).

A file holds the generator and the part that retrieves as state dicts, `generator_model_dict` and `retriebal_model_dict`
(so spelt). It does not record whether panoramas are cut as CVACT's are, and how polar tiles were written.
"""

import re
from pathlib import Path

from geodtr.runtime.spec import PANORAMAS, Preprocessing
from geodtr.training.models.cde import CdeConfig, positions
from geodtr.training.models.importers.base import (
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

GROUND = Preprocessing(height=112, width=616, resize="opencv-cubic", imagery=PANORAMAS)
AERIAL = Preprocessing(height=112, width=616, polar=True, polar_scale=2, resize="opencv-cubic")

_RENAMES = (
    (re.compile(r"\.conv2d\."), "."),
    (re.compile(r"\.weight_orig$"), ".weight"),
    (re.compile(r"\.weight_([uv])$"), r".\1"),
    (re.compile(r"^retriebal_model_dict\.extract2\."), "ground.backbone."),
    (re.compile(r"^retriebal_model_dict\.sa2\."), "ground.layout."),
    (re.compile(r"^retriebal_model_dict\.sa1\."), "aerial.layout."),
    (re.compile(r"^generator_model_dict\.begin_conv\."), "aerial.backbone.begin."),
    (re.compile(r"^generator_model_dict\.begini_e\."), "aerial.backbone.begin_norm."),
)
_NUMBERED = re.compile(r"^generator_model_dict\.(?:conv(\d+)\.conv_(r1|r2|l)|in(\d+)_e|res(\d+)\.(conv|in)(\d))\.")
_DOWN = {"r1": "first", "r2": "second", "l": "shortcut"}
_DECODER = re.compile(r"^generator_model_dict\.(attention2|deconv\d|in\d_d|conv_end)\.")
"""Of the generator, what only draws street views, which no checkpoint here has."""


class CdeImporter(Importer):
    """CDE's encoder of tiles, its ResNet for panoramas, and both attentions."""

    title = "CDE"
    config = CdeConfig
    marks = ("generator_model_dict.", "retriebal_model_dict.")
    renames = _RENAMES

    def rename(self, name: str) -> str:
        return super().rename(_NUMBERED.sub(_numbered, name))

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        del parameters, notice  # the release writes none, and nothing is assumed
        require(tensors, {"ground.layout.w1": 3, "aerial.layout.w1": 3, "aerial.backbone.begin.weight": 4}, path, "CDE")
        encoder = [first_size(tensors, f"aerial.backbone.downs.{stage}.norm.weight") for stage in range(3)]
        stages = [f"ground.backbone.layers.{stage}" for stage in (3, 4, 5)]
        widths = [first_size(tensors, f"{stage}.0.bn1.weight") for stage in stages]
        blocks = [max(1, count(tensors, rf"{re.escape(stage)}\.(\d+)\.")) for stage in stages]
        config = CdeConfig(
            descriptors=tensors["ground.layout.w1"].shape[2],
            begin=first_size(tensors, "aerial.backbone.begin.weight"),
            encoder=(encoder[0], encoder[1], encoder[2]),
            residuals=max(1, count(tensors, r"aerial\.backbone\.residuals\.(\d+)\.")),
            widths=(widths[0], widths[1], widths[2]),
            blocks=(blocks[0], blocks[1], blocks[2]),
        )
        ground, aerial = (
            match_input(tensors[f"{branch}.layout.w1"].shape[0], (known,), positions, path)
            for branch, known in (("ground", GROUND), ("aerial", AERIAL))
        )
        whole = settings_of(config, CdeConfig())
        unknown = (
            f"{path} is a checkpoint of CDE, which does not record how panoramas are cut and polar tiles were written. "
            f"Name it: --preset cde-cvusa or --preset cde-cvact{'; here with' + whole if whole else ''}"
        )
        return Network(config, ground, aerial, unknown=unknown)

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        del config
        return {name: tensor for name, tensor in tensors.items() if not _DECODER.match(name)}


def _numbered(found: re.Match[str]) -> str:
    """Stages count from 0 here."""
    down, convolution, down_norm, residual, part, number = found.groups()
    if down is not None:
        return f"aerial.backbone.downs.{int(down) - 1}.{_DOWN[convolution]}."
    if down_norm is not None:
        return f"aerial.backbone.downs.{int(down_norm) - 1}.norm."
    return f"aerial.backbone.residuals.{int(residual) - 1}.{'norm' if part == 'in' else part}{number}."
