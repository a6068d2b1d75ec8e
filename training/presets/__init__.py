"""Training presets, one TOML file each. Does not import PyTorch, so that a wrong name fails at once."""

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.files.documents import MAX_TOML_BYTES, decode_toml, read_document


def preset_names() -> list[str]:
    """The names of the presets."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in files(__name__).iterdir() if entry.name.endswith(".toml")
    )


def read_preset(name: str) -> dict[str, Any]:
    """The values of a preset or a TOML file. Raises ConfigError when `name` is neither."""
    if name in preset_names():
        text = (files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
    elif os.path.isfile(name):  # noqa: PTH113 (Path.is_file raises at a name that is too long for the disk)
        try:
            text = read_document(Path(name), MAX_TOML_BYTES).decode("utf-8-sig", "replace")
        except OSError as error:
            raise ConfigError(f"{name} cannot be read ({error.strerror}).") from None
    else:
        raise ConfigError(f"{name!r} is not a preset; allowed: {', '.join(preset_names())}, or a TOML file.")
    try:
        return decode_toml(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name} is not a configuration in TOML: {error}.") from None
