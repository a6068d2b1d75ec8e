"""The resumable state of a run: weights of all that is trained, the optimiser's moments, and progress.

One safetensors file with a JSON header, replaced atomically. It holds no random state: see `seeding`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.files import write_bytes
from geodtr.runtime.files.documents import decode_json
from geodtr.training.models.checkpoint import fill_strictly
from geodtr.training.negatives.mining import LastDescriptors

_HEADER_KEY = "geodtr-run"
_WEIGHTS, _MOMENTS, _MEMORY = "weights/", "optimizer/", "last-descriptors/"


class RunState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Progress of a run: `step` of `total` steps are done.

    `best` is the highest validated R@1 so far, with ties counted as misses; of a network that draws, its smallest
    difference to real tiles, negated. `validation_due`: the last epoch's weights are not validated yet.
    `pairs_sha256` is the hash of the training pairs: their files and positions.
    """

    step: int
    total: int
    pairs_sha256: str
    best: float | None
    validation_due: bool
    scaler: dict[str, Any]


def is_finished(state: RunState) -> bool:
    """Whether all steps and validations are done."""
    return state.step == state.total and not state.validation_due


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run's state and tensors, as read from the file."""

    state: RunState
    tensors: dict[str, Tensor]
    path: Path

    def restore(self, networks: nn.Module, optimizer: torch.optim.Optimizer, memory: LastDescriptors | None) -> None:
        """Fill `networks`, `optimizer` and `memory`. Raises CheckpointError when the tensors do not fit them."""
        weights = _below(_WEIGHTS, self.tensors)
        fill_strictly(networks, weights, self.path)
        moments = _below(_MOMENTS, self.tensors)
        state = {
            index: {
                key: moments[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{key}" in moments
            }
            for index, (name, _) in enumerate(networks.named_parameters())
        }
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        if memory is not None:
            self._remember(memory)

    def _remember(self, memory: LastDescriptors) -> None:
        stored = {name: tensor.numpy() for name, tensor in _below(_MEMORY, self.tensors).items()}
        if {"ground", "aerial", "order", "epoch"} != stored.keys() or any(
            stored[name].shape != memory.ground.shape for name in ("ground", "aerial")
        ):
            raise CheckpointError(
                f"{self.path} does not hold the last descriptors of these pairs. Train again with another --out."
            )
        memory.ground[:], memory.aerial[:] = stored["ground"], stored["aerial"]
        memory.order, memory.epoch = stored["order"], int(stored["epoch"])


def save_state(
    path: Path,
    state: RunState,
    networks: nn.Module,
    optimizer: torch.optim.Optimizer,
    memory: LastDescriptors | None,
) -> None:
    """Write the state to `path` atomically."""
    tensors = {_WEIGHTS + name: tensor.contiguous() for name, tensor in networks.state_dict().items()}
    for name, parameter in networks.named_parameters():
        for key, tensor in optimizer.state[parameter].items():
            tensors[f"{_MOMENTS}{name}/{key}"] = tensor.contiguous()
    if memory is not None:
        tensors[f"{_MEMORY}ground"], tensors[f"{_MEMORY}aerial"] = map(torch.from_numpy, (memory.ground, memory.aerial))
        tensors[f"{_MEMORY}order"], tensors[f"{_MEMORY}epoch"] = (
            torch.from_numpy(memory.order),
            torch.tensor(memory.epoch),
        )
    write_bytes(path, serialize(tensors, metadata={_HEADER_KEY: msgspec.json.encode(state).decode()}))


def load_state(path: Path) -> SavedRun:
    """Read a run's state. Raises CheckpointError when the file is not a state or is incomplete."""
    try:
        with safe_open(path, framework="pt") as file:
            state = decode_json((file.metadata() or {})[_HEADER_KEY], RunState)
            return SavedRun(state, {name: file.get_tensor(name) for name in file.keys()}, path)  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, KeyError, msgspec.DecodeError) as error:
        raise CheckpointError(
            f"{path} is not the state of a resumable run ({error}). Train again with another --out."
        ) from None


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
