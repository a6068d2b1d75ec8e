"""Importer for checkpoints of the official DSM release (CVPR 2020), which TensorFlow 1 wrote.

Variables are `VGG_grd/conv1_1/weights`, `sat/conv_dim_reduct_1/...`. A file records neither the field of view nor
whether panoramas are cut as CVACT's are.
"""

from pathlib import Path

from geodtr.runtime.spec import PANORAMAS, Preprocessing
from geodtr.training.models.dsm import DsmConfig
from geodtr.training.models.importers.base import Importer, Network, Notice, Tensors, first_size, require, settings_of
from geodtr.training.models.importers.vgg_tensorflow import CAFFE_MEAN, CAFFE_STD, from_tensorflow, rename, widths
from geodtr.training.models.registry import ModelConfig

GROUND = Preprocessing(height=128, width=512, mean=CAFFE_MEAN, std=CAFFE_STD, resize="area", imagery=PANORAMAS)
AERIAL = Preprocessing(height=128, width=512, polar=True, stretch=True, mean=CAFFE_MEAN, std=CAFFE_STD)

_LAYERS = {"conv_dim_reduct_1": 0, "conv5_dim_reduct_2": 2, "conv5_dim_reduct_3": 4}
_PARTS = {
    f"{theirs}/{layer}": f"{ours}.head.{number}"
    for theirs, ours in (("grd", "ground"), ("sat", "aerial"))
    for layer, number in _LAYERS.items()
}


class DsmImporter(Importer):
    """DSM, the published network: VGG_13_conv_v2_cir."""

    title = "DSM"
    config = DsmConfig
    marks = tuple(_PARTS)

    def rename(self, name: str) -> str:
        return rename(name, DsmConfig().convolutions, _PARTS)

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        del parameters, notice  # the release writes none, and nothing is assumed
        require(tensors, {"ground.head.0.weight": 4, "aerial.head.0.weight": 4}, path, self.title)
        one, two, three, four = widths(tensors, DsmConfig().convolutions)
        first, second, last = (first_size(tensors, f"ground.head.{number}.bias") for number in _LAYERS.values())
        config = DsmConfig(widths=(one, two, three, four), head=(first, second, last))
        unknown = (
            f"{path} is a checkpoint of DSM, which records neither the field of view nor how panoramas are cut. Name "
            "them: --preset dsm-cvusa or --preset dsm-cvact, and for 180, 90 or 70 degrees --set ground.width=256, 128 "
            f"or 99, with --set ground.imagery.field_of_view=180, 90 or 70{settings_of(config, DsmConfig())}"
        )
        return Network(config, GROUND, AERIAL, unknown=unknown)

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        del config
        return from_tensorflow(tensors)
