"""The training configuration: one document, read from a preset, saved beside the weights it made."""

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.augment.layout_simulation import Layout
from geodtr.training.augment.photometric import Semantic
from geodtr.training.models.registry import ModelConfig
from geodtr.training.presets import read_preset
from geodtr.training.qat import Int8Simulation

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides what training makes of a data set.

    `micro_batch`: pairs that go through the network at once, 0 for the whole batch. A smaller one needs less memory and
    computes each image twice; every pair of the batch remains a negative of every other, and batch normalisation sees
    one micro-batch. The learning rate rises linearly over `warmup` (a share of all steps), then follows a cosine to
    zero. `hardest` is the share of triplets, those of largest loss, that count from half the run on; it falls to that
    from all of them. `counterfactual_weight` 0 leaves that loss out. `layout` is the strength of layout simulation
    (any-angle needs a polar aerial branch), `semantic` that of semantic augmentation. `heading_error`: panoramas alone
    are turned by up to so many degrees either way, for a model that is to find places though a heading is known no
    better; half a step of the headings that `localize` searches, 180 / N.
    `pretrained` weights of the backbone: none, imagenet, or a file. `start`: a checkpoint of the same network that
    training goes on from; none where empty.
    """

    epochs: Count
    batch_size: Annotated[int, msgspec.Meta(ge=2)]
    micro_batch: Annotated[int, msgspec.Meta(ge=0)] = 0
    learning_rate: Positive
    weight_decay: NotNegative = 0.03
    warmup: Share = 0.08
    clip_norm: Positive = 1.0
    triplet_alpha: Positive = 10.0
    hardest: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    counterfactual_beta: Positive = 5.0
    counterfactual_weight: NotNegative = 1.0
    layout: Layout = "strong"
    semantic: Semantic = "none"
    heading_error: Annotated[float, msgspec.Meta(ge=0, le=180)] = 0.0
    pretrained: str = "none"
    start: str = ""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the work is done. `precision` is the backbone's arithmetic; weights, losses and the optimiser stay float32.
    On a GPU, "float32" leaves convolutions in TF32, PyTorch's default; validation and parity compute without it.

    `channels_last` and `compile` change speed alone, up to rounding. Images are held in memory, decoded once, where
    both views of all pairs take at most `cache_gb` GB; otherwise they are decoded anew each epoch. The state to resume
    from is saved after every epoch, and within long ones every `save_minutes`.
    """

    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    cache_gb: NotNegative = 4.0
    save_minutes: Positive = 10.0
    validate_every: Count = 1


class DataSpecs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run reads, as SPECs; empty for none. `limit`: train on the first so many pairs, 0 for all."""

    train: str = ""
    validation: str = ""
    limit: Annotated[int, msgspec.Meta(ge=0)] = 0


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run: what is trained, on which inputs, by which recipe, and how this machine goes about it."""

    recipe: Recipe
    ground: Preprocessing
    aerial: Preprocessing
    model: ModelConfig
    machine: Machine = Machine()
    data: DataSpecs = DataSpecs()
    int8: Int8Simulation = Int8Simulation()

    @property
    def micro_batch(self) -> int:
        """Pairs that go through the network at once."""
        return self.recipe.micro_batch or self.recipe.batch_size

    def __post_init__(self) -> None:
        if self.ground.polar:
            raise ConfigError("ground.polar is true: the transform unrolls square aerial tiles. Set it to false.")
        if self.recipe.layout == "any-angle" and not self.aerial.polar:
            raise ConfigError(
                'recipe.layout "any-angle" needs a polar aerial branch; a square tile turns by quarters: "strong".'
            )
        if self.recipe.layout == "strong" and not self.aerial.polar and self.aerial.height != self.aerial.width:
            raise ConfigError(
                f'recipe.layout "strong" turns tiles by quarters, and aerial is {self.aerial.height}x'
                f'{self.aerial.width}: make it square, or set recipe.layout to "weak" or "none".'
            )
        if self.recipe.start and self.recipe.pretrained != "none":
            raise ConfigError("recipe.start and recipe.pretrained both name first weights; set one of them.")
        if self.recipe.batch_size % self.micro_batch:
            raise ConfigError(
                f"recipe.micro_batch {self.micro_batch} does not divide recipe.batch_size {self.recipe.batch_size}."
            )


def load_preset(
    name: str, settings: Sequence[str] = (), changes: Mapping[str, Any] = MappingProxyType({})
) -> TrainConfig:
    """A preset by name, or any TOML file, with other values: `settings` are `key=value`, `changes` key to value.

    Keys are dotted: recipe.epochs. Raises ConfigError that names what is wrong and lists what is allowed.
    """
    values = read_preset(name)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is not KEY=VALUE, for example recipe.epochs=20.")
        _put(values, key.strip(), _value(text.strip()))
    for key, value in changes.items():
        _put(values, key, value)
    try:
        return msgspec.convert(values, type=TrainConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"Preset {name}: {_readable(error)}.") from None


def encode_config(config: TrainConfig) -> bytes:
    """The whole configuration as TOML, every default written out."""
    return msgspec.toml.encode(config)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    allowed = dict(_keys(TrainConfig))
    if key not in allowed:
        near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.0)[0]
        # A last part alone is often what was meant: epochs for recipe.epochs.
        ends = [name for name in allowed if name.rpartition(".")[2] == key.rpartition(".")[2]]
        raise ConfigError(f"{key!r} is not a setting; the nearest is {(ends or [near])[0]}. All: {', '.join(allowed)}.")
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{part} is {values!r}; a table is needed there, for {key} among others.")
    values[last] = value


def _keys(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _keys(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


def _value(text: str) -> Any:
    """What TOML makes of it; a word without quotes is that word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _readable(error: msgspec.ValidationError) -> str:
    """`Expected int - at $.recipe.epochs` -> `recipe.epochs: expected int`; with what is allowed, where that is few."""
    what, _, where = str(error).partition(" - at `$.")
    key = where.rstrip("`")
    if what.startswith("Invalid enum value "):
        what = f"{what.removeprefix('Invalid enum value ')} is none of its values"
    kind = dict(_keys(TrainConfig)).get(key)
    allowed = f"; allowed: {', '.join(map(str, get_args(kind)))}" if get_origin(kind) is Literal else ""
    return f"{key}: {what[0].lower()}{what[1:]}{allowed}" if where else what
