"""Importer for checkpoints of the official CVFT release (AAAI 2020), which TensorFlow 1 wrote.

Variables are `VGG_grd/conv1_1/weights`, `grd_conv/...`, `ot_grd_branchot_fc/...`. A file does not record whether
panoramas are cut as CVACT's are.
"""

from pathlib import Path

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.spec import PANORAMAS, Preprocessing
from geodtr.training.models.cvft import CvftConfig, grid
from geodtr.training.models.importers.base import Importer, Network, Notice, Tensors, first_size, require, settings_of
from geodtr.training.models.importers.vgg_tensorflow import CAFFE_MEAN, CAFFE_STD, from_tensorflow, rename, widths
from geodtr.training.models.registry import ModelConfig

GROUND = Preprocessing(height=112, width=616, mean=CAFFE_MEAN, std=CAFFE_STD, resize="area", imagery=PANORAMAS)
AERIAL = Preprocessing(height=256, width=256, mean=CAFFE_MEAN, std=CAFFE_STD, resize="area")

_PARTS = {
    "grd_conv": "ground.reduce",
    "sat_conv": "aerial.reduce",
    "ot_grd_branchot_conv": "ground.transport.squeeze",
    "ot_grd_branchot_fc": "ground.transport.costs",
}


class CvftImporter(Importer):
    """CVFT, with VGG-16's convolutions."""

    title = "CVFT"
    config = CvftConfig
    marks = ("grd_conv/", "sat_conv/", "ot_grd_branch")

    def rename(self, name: str) -> str:
        return rename(name, CvftConfig().convolutions, _PARTS)

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        del parameters, notice  # the release writes none, and nothing is assumed
        require(tensors, {"ground.transport.costs.weight": 2, "ground.reduce.weight": 4}, path, self.title)
        first, second, third, fourth, fifth = widths(tensors, CvftConfig().convolutions)
        config = CvftConfig(
            widths=(first, second, third, fourth, fifth), channels=first_size(tensors, "ground.reduce.bias")
        )
        rows, columns = grid(AERIAL)
        positions = tensors["ground.transport.costs.weight"].shape[0]
        if positions != rows * columns:
            raise CheckpointError(
                f"{path} transports between {positions} positions; the official aerial size, {AERIAL.height}x"
                f"{AERIAL.width}, has {rows * columns}. Describe another network by a preset: --preset FILE.toml"
            )
        whole = settings_of(config, CvftConfig())
        unknown = (
            f"{path} is a checkpoint of CVFT, which does not record how panoramas are cut. Name it: --preset "
            f"cvft-cvusa or --preset cvft-cvact{'; here with' + whole if whole else ''}"
        )
        return Network(config, GROUND, AERIAL, unknown=unknown)

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        del config
        return from_tensorflow(tensors)
