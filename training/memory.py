"""The memory that a training run needs at least, and what there is: a run that cannot fit is refused at once.

Source: PyTorch's hooks on what the backward pass keeps, on its device meta, which computes shapes alone.
"""

from functools import cache

import torch
from msgspec import Struct
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.machine import memory_bytes
from geodtr.runtime.spec import Preprocessing
from geodtr.training.config import TrainConfig
from geodtr.training.models.registry import ModelConfig, outline
from geodtr.training.parallel.distributed import Ranks

_COPIES = 4
"""Of each parameter: its value, its gradient, and the optimiser's two moments."""
_ROWS = 2  # batch normalisation needs two


def check_memory(config: TrainConfig, ranks: Ranks) -> None:
    """Raise ConfigError, with numbers, when the run needs more memory than its GPU or this machine has."""
    network = outline(config.model, config.ground, config.aerial)
    count = sum(parameter.numel() for parameter in network.parameters())
    copies = _COPIES + (1 if config.recipe.sharpness else 0)  # ASAM puts the values back
    weights, pairs = 4 * copies * count, config.micro_batch // ranks.count
    gpu = ranks.device.type == "cuda"
    there = torch.cuda.get_device_properties(ranks.device).total_memory if gpu else memory_bytes()
    where = "this GPU" if gpu else "this machine"
    if weights > there:
        raise ConfigError(
            f"The model has {count:,} parameters. To train it takes at least {_gb(weights)}; {where} has {_gb(there)}. "
            f"{_smaller(config)}"
        )
    of_a_pair = _kept(config.model, config.ground, config.aerial, config.recipe.looks) * config.recipe.views
    if config.machine.precision != "float32":
        of_a_pair //= 2  # any of it may be in half precision
    if weights + of_a_pair * pairs > there:
        fit = (there - weights) // of_a_pair * ranks.count
        lower = f"Lower recipe.micro_batch (now {config.micro_batch}): at most {fit} fit." if fit else _smaller(config)
        raise ConfigError(
            f"{pairs} pairs per forward pass take at least {_gb(weights + of_a_pair * pairs)}; {where} has "
            f"{_gb(there)}. {lower}"
        )


def _smaller(config: TrainConfig) -> str:
    """The remedy that names the sizes which this kind of model has."""
    values = ((name, getattr(config.model, name)) for name in config.model.__struct_fields__)
    sizes = [f"model.{name}" for name, value in values if type(value) is int or isinstance(value, tuple | Struct)]
    return f"Make it smaller: {', '.join(sizes)}, or the input sizes."


@cache
def _kept(model: ModelConfig, ground: Preprocessing, aerial: Preprocessing, looks: int) -> int:
    """Bytes that the backward pass keeps of one pair, at least, in float32. To trace it takes half a second."""
    network = outline(model, ground, aerial).train()
    own = {_storage(tensor) for tensor in network.state_dict().values()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            # Held, so that its storage stays its own.
            kept[_storage(tensor)] = tensor, tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        for branch, part in network.trained.items():
            height, width, channels = network.specs[branch].preprocessing.shape
            rows = _ROWS * (looks if branch == "ground" else 1)
            images = torch.empty((rows, channels, height, width), device="meta")
            part(images)
    return sum(size for _, size in kept.values()) // _ROWS


def _storage(tensor: Tensor) -> int:
    number: int = tensor.untyped_storage()._cdata
    return number


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
