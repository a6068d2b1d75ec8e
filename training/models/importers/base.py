"""What an importer knows of a release: how to recognise its files, its names, and what shapes say of the network."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from torch import Tensor

from geodtr.runtime.errors import CheckpointError
from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.registry import ModelConfig

Tensors = Mapping[str, Tensor]
Notice = Callable[[str], None]
P = TypeVar("P", bound=msgspec.Struct)

HEAD_WIDTH = 64
"""Of each head of a vision transformer, in every variant that the releases of L2LTR and TransGeo have."""


@dataclass(frozen=True, slots=True)
class Network:
    """Everything that `build_model` needs.

    `unknown` is the error to raise if the weights fit this network, but neither they nor the parameters tell it from
    another one.
    """

    config: ModelConfig
    ground: Preprocessing
    aerial: Preprocessing
    unknown: str | None = None


class Importer(ABC):
    """One release.

    `title` is the model's name in messages, `config` its configuration, `marks` what one of a file's keys begins with.
    `renames` turn the release's names into this project's. `in_files`: a network may be in several files. `parameters`:
    what describes the network in the release's JSON of training options, by its names; None where it writes none.
    """

    title: str
    config: type[ModelConfig]
    marks: tuple[str, ...]
    renames: Sequence[tuple[re.Pattern[str], str]] = ()
    in_files: bool = False
    parameters: type[msgspec.Struct] | None = None

    def rename(self, name: str) -> str:
        """A release's name, without `module.` -> this project's: all `renames` in order."""
        for pattern, replacement in self.renames:
            name = pattern.sub(replacement, name)
        return name

    @abstractmethod
    def infer(self, tensors: Tensors, parameters: Path | None, path: Path, notice: Notice) -> Network:
        """The network whose weights, under this project's names, `tensors` are.

        `parameters` is the release's JSON of training options. `notice` is called with what had to be assumed. Raises
        CheckpointError when the two contradict each other, or the tensors are none of this model's.
        """

    def stated(self, network: Network) -> Mapping[str, object]:
        """The `parameters` with which the release would have trained `network`, but for those that it does not tell."""
        del network
        return {}

    def refuse(self, tensors: Tensors, network: Network | None, path: Path) -> None:
        """Raise CheckpointError for weights of a variant that is not supported, which `network` does not describe."""
        del tensors, network, path

    def convert(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        """The tensors that the network has, in its shapes."""
        del config
        return tensors

    def first_stage(self, network: Network) -> Network | None:
        """The network of the first stage, in a file of its own, that `network` cannot do without; None without one."""
        del network
        return None

    def from_first_stage(self, tensors: Tensors, config: ModelConfig) -> Tensors:
        """The part of the first stage's weights that the network has, in its names."""
        del tensors, config
        return {}


def read_parameters(file: Path | None, kind: type[P]) -> P:
    """The training options in `file`, all unknown if it is None."""
    if file is None:
        return kind()
    try:
        return decode_json(read_document(file), kind, strict=False)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}). Check --parameters.") from None
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{file} does not hold training options as JSON: {error}. Check --parameters.") from None


def check_weights(options: msgspec.Struct, inferred: Mapping[str, object], path: Path) -> None:
    """Raise CheckpointError when one of the `options` has another value than the weights."""
    for name, stated, value in _contradictions(options, inferred):
        raise CheckpointError(
            f"The parameters of {path} have {name} = {stated}, but its weights have {value}: the files do not match. "
            "Give the right file with --parameters."
        )


def check_preset(options: msgspec.Struct, described: Mapping[str, object], file: Path) -> None:
    """Raise CheckpointError when one of the `options` in `file` has another value than a preset."""
    for name, stated, value in _contradictions(options, described):
        raise CheckpointError(
            f"{file} has {name} = {stated}, and the preset {value}. Change the preset by --set, or leave --preset out; "
            "if the file belongs to another checkpoint, move it away."
        )


def _contradictions(options: msgspec.Struct, network: Mapping[str, object]) -> Iterator[tuple[str, object, object]]:
    """Name, what the options have, and what the network has."""
    for name, value in network.items():
        stated = getattr(options, name)
        if stated not in (None, value):
            yield name, stated, value


def settings_of(config: msgspec.Struct, default: msgspec.Struct, of: str = "model") -> str:
    """The options that make a preset's `default` network, or input `of` a branch, the one of `config`; empty if it is.

    Where both are of different kinds, their tag is an option, too.
    """
    tag, kind = config.__struct_config__, type(config)
    options = "" if isinstance(default, kind) else f' --set "{of}.{tag.tag_field}={tag.tag}"'
    default = default if isinstance(default, kind) else kind()
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, msgspec.Struct):
            options += settings_of(value, getattr(default, name), f"{of}.{name}")
        elif value != getattr(default, name):
            shown = (
                list(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else value
            )
            options += f' --set "{of}.{name}={shown}"'
    return options


def require(tensors: Tensors, wanted: Mapping[str, int], path: Path, title: str) -> None:
    """Raise CheckpointError unless each of the `wanted` names has that many axes."""
    wrong = [name for name, axes in wanted.items() if name not in tensors or tensors[name].ndim != axes]
    if wrong:
        held = ", ".join(sorted({name.split(".")[0] for name in tensors})[:6]) or "nothing"
        raise CheckpointError(f"{path} is not a whole checkpoint of {title}: it holds {held}, and no {wrong[0]}.")


def count(tensors: Iterable[str], pattern: str) -> int:
    """The number of different values of the pattern's group."""
    return len({match.group(1) for name in tensors if (match := re.match(pattern, name))})


def first_size(tensors: Tensors, name: str) -> int:
    """The first axis of a tensor; 1 if there is none, which strict loading then reports."""
    tensor = tensors.get(name)
    return 1 if tensor is None or not tensor.ndim else max(1, tensor.shape[0])


def match_input(
    number: int, known: Sequence[Preprocessing], positions: Callable[[Preprocessing], int], path: Path
) -> Preprocessing:
    """The first of the `known` inputs that has this number of feature positions."""
    for preprocessing in known:
        if positions(preprocessing) == number:
            return preprocessing
    sizes = " or ".join(f"{p.height}x{p.width}" for p in known)
    raise CheckpointError(
        f"{path} is made for inputs with {number} feature positions; the official sizes are {sizes}. Name another size "
        "by a preset and --set, for example: --preset NAME --set ground.width=PIXELS"
    )
