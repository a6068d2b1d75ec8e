"""Importer for files of the official FusionGAN release (ICCV 2019), whose stages leave files of their own.

The streams (`VGG_grd/conv1/weights`, `dim_reduction/fc1/...`) and the fusion (`fc/fc1/...`) are TensorFlow 1
checkpoints. The generator is a file of Torch, which is read as safetensors with the names of `Generator` and its
channels as they were, blue first.
"""

import re
from pathlib import Path

import torch

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.spec import PANORAMAS, Preprocessing
from geodtr.training.models.fusiongan import MOST_LAYERS, FusionGanConfig, TwoStreamConfig
from geodtr.training.models.importers.base import Importer, Network, Notice, Tensors, count, first_size, require
from geodtr.training.models.importers.vgg_tensorflow import CAFFE_MEAN, CAFFE_STD, ENDS, from_tensorflow
from geodtr.training.models.importers.weights import check_tensors, read_weights
from geodtr.training.models.registry import ModelConfig

GROUND = Preprocessing(height=224, width=1232, mean=CAFFE_MEAN, std=CAFFE_STD, resize="area", imagery=PANORAMAS)
AERIAL = Preprocessing(height=512, width=512, mean=CAFFE_MEAN, std=CAFFE_STD, resize="area")

_SCOPES = {
    "dim_reduction/fc1": "aerial.reduce",
    "dim_reduction/fc2": "ground.reduce",
    "fc/fc1": "fuse.aerial",
    "fc/fc2": "fuse.ground",
}
_CONVOLUTION = re.compile(r"(VGG_grd|VGG_sat|VGG_grd_seg)/conv(\d+)")
_STREAMS = {"VGG_grd": "ground.backbone", "VGG_sat": "aerial.backbone", "VGG_grd_seg": "drawn"}
_FIRST = "generator.encoder.0.conv.weight"
_PARTS = {
    "ground": "the streams",
    "drawn": "the stream of drawn tiles",
    "fuse": "the fusion",
    "generator": "the generator",
}


class FusionGanImporter(Importer):
    """FusionGAN, whole; or its streams of panoramas and tiles alone."""

    title = "FusionGAN"
    config = TwoStreamConfig
    marks = ("dim_reduction/", "fc/fc", "encoder.0.conv.")
    in_files = True

    def rename(self, name: str) -> str:
        scope, _, end = name.rpartition("/")
        if scope in _SCOPES:
            return f"{_SCOPES[scope]}.{ENDS.get(end, end)}"
        if match := _CONVOLUTION.fullmatch(scope):
            return f"{_STREAMS[match[1]]}.{int(match[2]) - 1}.{ENDS.get(end, end)}"
        return f"generator.{name}" if name.startswith(("encoder.", "decoder.")) else name

    def refuse(self, tensors: Tensors, network: Network | None, path: Path) -> None:
        there = {name.split(".")[0] for name in tensors}
        whole = network is not None and isinstance(network.config, FusionGanConfig)
        missing = [title for part, title in _PARTS.items() if part not in there]
        if missing and (whole or there & {"fuse", "generator"}):
            raise CheckpointError(
                f"{path} is one of FusionGAN's files, which are imported together; there is none of "
                f"{', '.join(missing)}. Give all of them: geodtr-export import-checkpoint FUSION.index STREAMS.index "
                "GENERATOR.safetensors. The streams' file alone is the network of two streams."
            )
        if _FIRST in tensors and tensors[_FIRST].shape[1:2] == (4,):
            raise CheckpointError(
                f"{path}: the generator takes four channels, the fourth with Canny edges, which is not supported. "
                "Give one that takes the panorama alone."
            )

    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        del parameters  # the release writes none
        require(tensors, {"ground.reduce.weight": 2, "ground.backbone.2.weight": 4}, path, self.title)
        size = first_size(tensors, "ground.reduce.bias")
        config = TwoStreamConfig(descriptor_size=size, widths=_widths(tensors, "ground.backbone.{}.bias"))
        if "fuse.ground.weight" in tensors:
            require(tensors, {"generator.encoder.2.conv.weight": 4}, path, self.title)
            generator = _widths(tensors, "generator.encoder.{}.conv.bias")
            config = FusionGanConfig(descriptor_size=size, widths=config.widths, generator=generator)
        elif "drawn.0.weight" in tensors:
            notice(f"{path} is of three streams; the one of drawn tiles, which needs a generator, is left out.")
        return Network(config, GROUND, AERIAL)

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        generator = {name: tensor for name, tensor in tensors.items() if name.startswith("generator.")}
        left_out = () if isinstance(config, FusionGanConfig) else ("drawn.",)
        rest = {name: tensors[name] for name in tensors.keys() - generator.keys() if not name.startswith(left_out)}
        return {**from_tensorflow(rest), **_red_first(generator)}


def _widths(tensors: Tensors, bias: str) -> tuple[int, ...]:
    """Of all layers, whose biases have the name `bias` with a number."""
    there = [bias.format(layer) for layer in range(MOST_LAYERS) if bias.format(layer) in tensors]
    return tuple(first_size(tensors, name) for name in there)


def read_generator(path: Path) -> Tensors:
    """The generator's weights in a file, under the model's names. Raises CheckpointError when there are none."""
    content = read_weights(path)
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise CheckpointError(f"{path} does not hold tensors by name.")
    check_tensors(content, path)
    if any(str(name).startswith("generator.") for name in content):
        raise CheckpointError(
            f"{path} is a checkpoint of this toolkit, whose generator takes red first; a release's takes blue first. "
            "To begin with a run or a checkpoint of stage 1, name it as recipe.start: "
            f"--set recipe.start={path}"
        )
    renamed = {FusionGanImporter().rename(str(name)): tensor for name, tensor in content.items()}
    return _red_first(renamed)


def _red_first(generator: Tensors) -> Tensors:
    """The network takes and draws red first; the file, blue first."""
    steps = count(generator, r"generator\.decoder\.(\d+)\.")
    axes = {_FIRST: 1, f"generator.decoder.{steps - 1}.conv.weight": 1, f"generator.decoder.{steps - 1}.conv.bias": 0}
    turned = {
        name: tensor.flip(axes[name]) if axes.get(name, tensor.ndim) < tensor.ndim else tensor
        for name, tensor in generator.items()
    }
    # Torch does not count the batches.
    counters = (name.replace("running_mean", "num_batches_tracked") for name in generator if "running_mean" in name)
    return {**{name: torch.tensor(0) for name in counters}, **turned}
