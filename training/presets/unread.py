"""Settings that a configuration does not read: a user who changes one would wait for an effect that never comes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from geodtr.training.config import TrainConfig
from geodtr.training.models.cde import CdeConfig
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1Config
from geodtr.training.models.geodtr.geodtr import GeoDTRConfig
from geodtr.training.models.geodtr.geodtr_plus import GeoDTRPlusConfig
from geodtr.training.models.safa import SafaConfig

Reads = Callable[[TrainConfig], bool]


@dataclass(frozen=True, slots=True)
class _Read:
    """By which configurations a setting is read, and what that needs in words."""

    needed: str
    by: Reads


def unread(config: TrainConfig, settings: Sequence[str]) -> Iterator[str]:
    """A sentence for each of `settings`, KEY=VALUE, that changes nothing in a training with `config`."""
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key in _READ and not _READ[key].by(config):
            yield f"{setting} has no effect: it needs {_READ[key].needed}."


def _is(field: str, *values: object) -> Reads:
    """Whether the recipe's `field` has one of `values`."""
    return lambda config: getattr(config.recipe, field) in values


def _compares(config: TrainConfig) -> bool:
    """Whether triplets of plain weight are compared."""
    return config.recipe.loss in ("triplet", "adversarial") and not isinstance(config.model, FusionGanStage1Config)


def _imagines(config: TrainConfig) -> bool:
    """Whether the model gives counterfactual descriptors."""
    return isinstance(config.model, GeoDTRConfig | GeoDTRPlusConfig | SafaConfig)


_ADVERSARIAL = _Read("recipe.loss=adversarial", _is("loss", "adversarial"))
_TRIPLET = _Read("recipe.loss=triplet", _compares)
_EXEMPLAR = _Read("recipe.loss=her or recipe.loss=seh", _is("loss", "her", "seh"))
_LISTS = _Read("recipe.negatives=nearby or recipe.negatives=similar", _is("negatives", "nearby", "similar"))
_LAYOUT = "the model geodtr, geodtr-plus or safa"
_READ: Mapping[str, _Read] = {
    "recipe.real_label": _ADVERSARIAL,
    "recipe.l1_weight": _ADVERSARIAL,
    "recipe.matching_weight": _Read(
        "recipe.loss=adversarial and the model cde",
        lambda config: config.recipe.loss == "adversarial" and isinstance(config.model, CdeConfig),
    ),
    "recipe.triplet_alpha": _TRIPLET,
    "recipe.hardest": _TRIPLET,
    "recipe.hardest_from": _TRIPLET,
    "recipe.exemplar_scale": _EXEMPLAR,
    "recipe.exemplar_margin": _EXEMPLAR,
    "recipe.exemplar_both": _EXEMPLAR,
    "recipe.exemplar_detach": _EXEMPLAR,
    "recipe.label_smoothing": _Read("recipe.loss=infonce", _is("loss", "infonce")),
    "recipe.counterfactual_weight": _Read(
        _LAYOUT, lambda config: not config.recipe.counterfactual_weight or _imagines(config)
    ),
    "recipe.counterfactual_beta": _Read(
        f"{_LAYOUT}, and a recipe.counterfactual_weight",
        lambda config: bool(config.recipe.counterfactual_weight) and _imagines(config),
    ),
    "recipe.neighbours": _LISTS,
    "recipe.selected_neighbours": _LISTS,
    "recipe.compare_every": _Read("recipe.negatives=similar", _is("negatives", "similar")),
    "recipe.warmup": _Read(
        "a recipe.schedule other than constant",
        lambda config: not config.recipe.warmup or config.recipe.schedule != "constant",
    ),
}
"""The settings that not every training reads."""
