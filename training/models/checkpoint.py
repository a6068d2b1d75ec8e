"""Checkpoints: one safetensors file whose header holds, as JSON, everything needed to rebuild the model.

One file, so that it is replaced atomically. Reading executes no code; keys are matched strictly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.files import sha256, write_bytes
from geodtr.runtime.files.documents import decode_json
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.registry import Model, ModelConfig, build_model, outline
from geodtr.training.run_files import find_checkpoint

_HEADER_KEY = "geodtr"


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The header of a checkpoint. `origin` describes the source of the weights.

    `trained_on` is the SPEC of the training set, if known.
    """

    schema: Literal[2] = 2
    model: ModelConfig
    ground: Preprocessing
    aerial: Preprocessing
    origin: str
    trained_on: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model read from a file; `sha256` is the hash of the whole file."""

    model: Model
    info: CheckpointInfo
    sha256: str

    @property
    def embedding_id(self) -> str:
        """The identifier of this model's embedding space, the same for all its engines."""
        return self.sha256[:16]


def save_checkpoint(
    path: Path, model: Model, origin: str, trained_on: str | None = None, *, replace: bool = True
) -> None:
    """Write `model` to `path` atomically; `replace` as in `new_file`."""
    info = CheckpointInfo(
        model=model.config,
        ground=model.specs["ground"].preprocessing,
        aerial=model.specs["aerial"].preprocessing,
        origin=origin,
        trained_on=trained_on,
    )
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(path, serialize(tensors, metadata={_HEADER_KEY: msgspec.json.encode(info).decode()}), replace=replace)


def read_info(path: Path) -> CheckpointInfo:
    """Read only the header of a checkpoint. Raises CheckpointError when the file is not a checkpoint."""
    path = find_checkpoint(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER_KEY)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({error}). To import an official .pth file: "
            f"geodtr-export import-checkpoint {path} --out model.safetensors"
        ) from None
    if header is None:
        raise CheckpointError(f"{path} holds weights without the header that this project writes.")
    try:
        return decode_json(header, CheckpointInfo)
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{path} describes a model that this version does not know: {error}.") from None


def load_checkpoint(path: Path) -> Checkpoint:
    """Build the model that `path` (a file or a run's folder) describes, and load its weights strictly.

    Raises CheckpointError when the file is invalid.
    """
    path = find_checkpoint(path)
    info = read_info(path)
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        shapes = {name: file.get_slice(name).get_shape() for name in names}
        check_fits(info.model, info.ground, info.aerial, shapes, path)
        tensors = {name: file.get_tensor(name) for name in names}
    model = build_model(info.model, info.ground, info.aerial)
    fill_strictly(model, tensors, path)
    return Checkpoint(model.eval(), info, sha256(path))


def check_fits(
    config: ModelConfig, ground: Preprocessing, aerial: Preprocessing, shapes: Mapping[str, Sequence[int]], path: Path
) -> None:
    """Compare the names and `shapes` in the file with the network that it describes, before either takes memory.

    Raises CheckpointError when they differ, or no network can be what is described.
    """
    try:
        expected = outline(config, ground, aerial)
    except ConfigError as error:
        raise CheckpointError(f"{path} describes a network that cannot be built: {error}") from None
    _require_none(_differences(expected, shapes), path)


def fill_strictly(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `model`.

    Raises CheckpointError for keys that are missing, unexpected, of another shape, with values that are not finite in
    the model's type, or with integers in place of weights or the reverse.
    """
    problems = _differences(model, {name: tensor.shape for name, tensor in tensors.items()})
    for name, expected in model.state_dict().items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tensor.is_floating_point() != expected.is_floating_point():
            problems.append(f"{name} holds {_type(tensor)} instead of {_type(expected)}")
        elif not tensor.to(expected.dtype).isfinite().all():
            problems.append(f"{name} holds values that are not finite")
    _require_none(problems, path)
    model.load_state_dict(dict(tensors))


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _differences(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in shapes]
    problems += [f"{name} is unexpected" for name in shapes if name not in expected]
    return problems + [
        f"{name} has shape {list(shape)} instead of {list(expected[name].shape)}"
        for name, shape in shapes.items()
        if name in expected and tuple(shape) != expected[name].shape
    ]


def _require_none(problems: Sequence[str], path: Path) -> None:
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{path} does not hold the weights of this model: {shown}.")
