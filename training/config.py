"""The training configuration: one document, read from a preset, saved beside the weights it made."""

import sys
from importlib.resources import files
from typing import Any, Literal

import msgspec

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.spec import Preprocessing
from geodtr.training.models.geodtr import GeoDTRConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides what training makes of a data set.

    The learning rate rises linearly over `warmup` (a share of all steps), then follows a cosine to zero.
    `layout` is the strength of layout simulation: strong mirrors and turns by quarters, any-angle turns freely (polar
    pairs only), none leaves pairs as they are.
    """

    model: GeoDTRConfig
    ground: Preprocessing
    aerial: Preprocessing
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.03
    warmup: float = 0.08
    clip_norm: float = 1.0
    triplet_alpha: float = 10.0
    counterfactual_beta: float = 5.0
    layout: Literal["strong", "any-angle", "none"] = "strong"
    seed: int = 0


def preset_names() -> list[str]:
    """The presets that `load_preset` knows, by name."""
    folder = files("geodtr.training.presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str, **changes: Any) -> TrainConfig:
    """A preset by name, with top-level values changed. Raises ConfigError listing what is allowed."""
    if name not in preset_names():
        raise ConfigError(f"{name!r} is not a preset; allowed: {', '.join(preset_names())}.")
    values = tomllib.loads((files("geodtr.training.presets") / f"{name}.toml").read_text(encoding="utf-8"))
    try:
        config = msgspec.convert({**values, **changes}, type=TrainConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"Preset {name}: {error}.") from None
    if config.layout == "any-angle" and not config.aerial.polar:
        raise ConfigError('layout "any-angle" needs a polar aerial branch; a square tile turns by quarters: "strong".')
    if config.batch_size < 2 or config.epochs < 1:
        raise ConfigError("batch_size must be at least 2 (a batch holds its own negatives), epochs at least 1.")
    return config
