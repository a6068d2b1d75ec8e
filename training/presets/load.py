"""A training configuration out of a preset and settings, and into TOML."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType, UnionType
from typing import Any, Literal, get_args, get_origin

import msgspec

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files.documents import DocumentError, decode_toml
from geodtr.runtime.spec import ANY_IMAGES, Imagery
from geodtr.training.config import TrainConfig
from geodtr.training.presets import read_preset

_FIELD, _ASPECT = "ground.imagery.field_of_view", "ground.imagery.aspect"
_LONGEST = 100
"""Characters of a key that are compared with the settings: the time grows with their square."""


def load_preset(
    name: str, settings: Sequence[str] = (), changes: Mapping[str, Any] = MappingProxyType({})
) -> TrainConfig:
    """Load a preset or a TOML file and override values.

    Parameters
    ----------
    name
        Name of a preset, or path of a TOML file.
    settings
        Overrides as `key=value`, with dotted keys: recipe.epochs=20. Another field of view of the ground images changes
        their aspect with it, unless that is set too. Another kind of model, or of backbone, keeps what it has too.
    changes
        Overrides as a mapping, applied after `settings`.

    Raises
    ------
    ConfigError
        A key or value is wrong. The message lists the allowed ones.
    """
    values = read_preset(name)
    before, keys = _imagery(values), set(changes)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is not KEY=VALUE, for example recipe.epochs=20.")
        keys.add(key.strip())
        try:
            _put(values, key.strip(), _value(text.strip()))
        except DocumentError as error:
            raise ConfigError(f"{setting}: {error}.") from None
    for key, value in changes.items():
        _put(values, key, value)
    _drop_others(values, keys)
    try:
        config = msgspec.convert(values, type=TrainConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"Preset {name}: {_readable(error)}.") from None
    return _narrowed(config, before) if _FIELD in keys and _ASPECT not in keys else config


def check_config(config: TrainConfig) -> TrainConfig:
    """A configuration made in Python, with its values checked as a preset's are. Raises ConfigError."""
    try:
        return msgspec.convert(msgspec.to_builtins(config), type=TrainConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"The configuration: {_readable(error)}.") from None


def encode_config(config: TrainConfig) -> bytes:
    """The configuration as TOML, with all defaults written out."""
    return msgspec.toml.encode(config)


def _imagery(values: Mapping[str, Any]) -> Imagery:
    """What the preset states of ground images; where it is not valid, nothing."""
    ground = values.get("ground")
    try:
        return msgspec.convert(ground["imagery"] if isinstance(ground, dict) and "imagery" in ground else {}, Imagery)
    except msgspec.ValidationError:
        return ANY_IMAGES


def _narrowed(config: TrainConfig, before: Imagery) -> TrainConfig:
    """The configuration with the aspect of its field of view, where the preset states another one `before`."""
    imagery = config.ground.imagery
    if before.aspect is None or before.field_of_view is None or imagery.field_of_view is None:
        return config
    aspect = round(before.aspect * imagery.field_of_view / before.field_of_view, 3)
    imagery = msgspec.structs.replace(imagery, aspect=aspect)
    return msgspec.structs.replace(config, ground=msgspec.structs.replace(config.ground, imagery=imagery))


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    allowed = dict(_keys(TrainConfig))
    if key not in allowed:
        near = difflib.get_close_matches(key[:_LONGEST], allowed, n=1, cutoff=0.0)[0]
        # Users often omit the table: epochs for recipe.epochs.
        same_end = [name for name in allowed if name.rpartition(".")[2] == key.rpartition(".")[2]]
        raise ConfigError(
            f"{key!r} is not a setting; the nearest is {(same_end or [near])[0]}. All: {', '.join(allowed)}."
        )
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{part} is {values!r}, but {key} needs it to be a table.")
    values[last] = value


def _drop_others(values: dict[str, Any], keys: Collection[str]) -> None:
    """Where `keys` of the settings select another kind of a table, leave out what only the preset's kind has."""
    for path, kinds in _unions(TrainConfig):
        tag = kinds[0].__struct_config__.tag_field
        table: Any = values
        for part in path.split("."):
            table = table.get(part) if isinstance(table, dict) else None
        if f"{path}.{tag}" not in keys or not isinstance(table, dict):
            continue
        selected = [kind for kind in kinds if kind.__struct_config__.tag == table[tag]]
        for name in table.keys() - {tag, *(field for kind in selected for field in kind.__struct_fields__)}:
            if not any(f"{key}.".startswith(f"{path}.{name}.") for key in keys):
                del table[name]


def _unions(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Sequence[type[msgspec.Struct]]]]:
    """Tables that are of one of several kinds, by their keys."""
    for field in msgspec.structs.fields(struct):
        tables = _tables(field)
        if len(tables) > 1:
            yield prefix + field.name, tables
        for table in tables:
            yield from _unions(table, f"{prefix}{field.name}.")


def _tables(field: msgspec.structs.FieldInfo) -> list[type[msgspec.Struct]]:
    kinds = get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


def _keys(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        tables = _tables(field)
        if not tables:
            yield prefix + field.name, field.type
        if len(tables) > 1:  # a value selects one of them
            tags = [table.__struct_config__ for table in tables]
            yield f"{prefix}{field.name}.{tags[0].tag_field}", Literal[tuple(tag.tag for tag in tags)]
        for table in tables:
            yield from _keys(table, f"{prefix}{field.name}.")


def _value(text: str) -> Any:
    """Parse `text` as a TOML value; an unquoted word is a string."""
    try:
        return decode_toml(f"value = {text}")["value"]
    except DocumentError:
        raise
    except msgspec.DecodeError:
        return text


def _readable(error: msgspec.ValidationError) -> str:
    """`Expected int - at $.recipe.epochs` -> `recipe.epochs: expected int`, with the allowed values of a Literal."""
    what, _, where = str(error).partition(" - at `$.")
    key = where.rstrip("`")
    if what.startswith("Invalid enum value "):
        what = f"{what.removeprefix('Invalid enum value ')} is not allowed"
    kind = dict(_keys(TrainConfig)).get(key)
    allowed = f"; allowed: {', '.join(map(str, get_args(kind)))}" if get_origin(kind) is Literal else ""
    return f"{key}: {what[0].lower()}{what[1:]}{allowed}" if where else what
