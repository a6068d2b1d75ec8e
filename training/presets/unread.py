"""Settings that a configuration does not read: a user who changes one would wait for an effect that never comes."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from geodtr.training.config import TrainConfig
from geodtr.training.models.cde import CdeConfig
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1Config
from geodtr.training.models.geodtr.geodtr import GeoDTRConfig
from geodtr.training.models.geodtr.geodtr_plus import GeoDTRPlusConfig
from geodtr.training.models.safa import SafaConfig

Reads = Callable[[TrainConfig], bool]


def unread(config: TrainConfig, settings: Sequence[str]) -> Iterator[str]:
    """A sentence for each of `settings`, KEY=VALUE, that changes nothing in a training with `config`."""
    for setting in settings:
        key = setting.partition("=")[0].strip()
        needed, reads = _READ.get(key, ("", _always))
        if not reads(config):
            yield f"{setting} has no effect: it needs {needed}."


def _always(_config: TrainConfig) -> bool:
    return True


def _is(field: str, *values: object) -> Reads:
    """Whether the recipe's `field` has one of `values`."""
    return lambda config: getattr(config.recipe, field) in values


def _compares(config: TrainConfig) -> bool:
    """Whether triplets of plain weight are compared."""
    return config.recipe.loss in ("triplet", "adversarial") and not isinstance(config.model, FusionGanStage1Config)


def _imagines(config: TrainConfig) -> bool:
    """Whether the model gives counterfactual descriptors."""
    return isinstance(config.model, GeoDTRConfig | GeoDTRPlusConfig | SafaConfig)


_ADVERSARIAL = ("recipe.loss=adversarial", _is("loss", "adversarial"))
_TRIPLET = ("recipe.loss=triplet", _compares)
_EXEMPLAR = ("recipe.loss=her or recipe.loss=seh", _is("loss", "her", "seh"))
_LISTS = ("recipe.negatives=nearby or recipe.negatives=similar", _is("negatives", "nearby", "similar"))
_LAYOUT = "the model geodtr, geodtr-plus or safa"
_READ: Mapping[str, tuple[str, Reads]] = {
    f"recipe.{field}": how
    for field, how in {
        "real_label": _ADVERSARIAL,
        "l1_weight": _ADVERSARIAL,
        "matching_weight": (
            "recipe.loss=adversarial and the model cde",
            lambda config: config.recipe.loss == "adversarial" and isinstance(config.model, CdeConfig),
        ),
        "triplet_alpha": _TRIPLET,
        "hardest": _TRIPLET,
        "hardest_from": _TRIPLET,
        "exemplar_scale": _EXEMPLAR,
        "exemplar_margin": _EXEMPLAR,
        "exemplar_both": _EXEMPLAR,
        "exemplar_detach": _EXEMPLAR,
        "label_smoothing": ("recipe.loss=infonce", _is("loss", "infonce")),
        "counterfactual_weight": (_LAYOUT, lambda config: not config.recipe.counterfactual_weight or _imagines(config)),
        "counterfactual_beta": (
            f"{_LAYOUT}, and a recipe.counterfactual_weight",
            lambda config: bool(config.recipe.counterfactual_weight) and _imagines(config),
        ),
        "neighbours": _LISTS,
        "selected_neighbours": _LISTS,
        "compare_every": ("recipe.negatives=similar", _is("negatives", "similar")),
        "warmup": (
            "a recipe.schedule other than constant",
            lambda config: not config.recipe.warmup or config.recipe.schedule != "constant",
        ),
    }.items()
}
"""What each setting needs that not every training reads: in words, and of a configuration."""
