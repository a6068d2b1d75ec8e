"""What the TensorFlow releases of CVFT, DSM and FusionGAN share: VGG-16's names, axes, and Caffe's pixels."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from geodtr.training.models.backbones.vgg import layer_numbers
from geodtr.training.models.importers.base import Tensors, first_size

CAFFE_MEAN = (123.6 / 255, 116.779 / 255, 103.939 / 255)
"""Of red, green and blue. The releases feed blue first, which `from_tensorflow` exchanges in the first weights."""
CAFFE_STD = 1 / 255

_CONVOLUTION = re.compile(r"^VGG_(grd|sat)/conv(\d+_\d+)/")
_BRANCH = {"grd": "ground", "sat": "aerial"}
ENDS = {"weights": "weight", "biases": "bias"}
_OF_TRAINING = re.compile(r"/Adam(_\d+)?$|(^|/)beta\d_power$|^Variable(_\d+)?$")
_FIRST = (".backbone.0.weight", "drawn.0.weight")


def rename(name: str, convolutions: Sequence[int], parts: Mapping[str, str]) -> str:
    """`VGG_grd/conv2_1/weights` -> `ground.backbone.5.weight`, and the other `parts` by their scope."""
    scope, _, end = name.rpartition("/")
    end = ENDS.get(end, end)
    if scope in parts:
        return f"{parts[scope]}.{end}"
    match = _CONVOLUTION.match(name)
    numbers = layer_numbers(convolutions)
    if match is None or match[2] not in numbers or end not in ENDS.values():
        return name
    return f"{_BRANCH[match[1]]}.backbone.{numbers[match[2]]}.{end}"


def widths(tensors: Tensors, convolutions: Sequence[int]) -> list[int]:
    """Channels of each stage."""
    numbers = layer_numbers(convolutions)
    return [
        first_size(tensors, f"ground.backbone.{numbers[f'{stage + 1}_1']}.bias") for stage in range(len(convolutions))
    ]


def from_tensorflow(tensors: Tensors) -> Tensors:
    """PyTorch's order of axes, red first, and without what only training needs."""
    return {name: _turned(name, tensor) for name, tensor in tensors.items() if not _OF_TRAINING.search(name)}


def _turned(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim == 4:
        kernels = tensor.permute(3, 2, 0, 1)
        return kernels.flip(1) if name.endswith(_FIRST) else kernels
    return tensor.T if tensor.ndim == 2 else tensor
