"""Training presets, one TOML file each. Does not import PyTorch, so that a wrong name fails at once."""

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from geodtr.runtime.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
        text = Path(name).read_text(encoding="utf-8", errors="replace")
    else:
        raise ConfigError(f"{name!r} is not a preset; allowed: {', '.join(preset_names())}, or a TOML file.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not TOML: {error}.") from None
