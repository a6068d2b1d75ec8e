"""The configuration of a quantisation-aware run: a short training from a checkpoint, computing as INT8 engines do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from geodtr.calibration.operators import operators
from geodtr.calibration.ranges import RangeOptions, Ranges, calibrate
from geodtr.export.build.source import float32_bundle
from geodtr.export.calibration_pool import pool_of
from geodtr.export.precision.int8 import cut_by_relu
from geodtr.runtime.bundle import Bundle
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BRANCHES, Dialect
from geodtr.runtime.progress import Track, untracked
from geodtr.training.config import TrainConfig
from geodtr.training.data.pair_set import PairSet
from geodtr.training.models.checkpoint import CheckpointInfo, read_info
from geodtr.training.models.registry import outline
from geodtr.training.presets.load import load_preset
from geodtr.training.qat import without_norm
from geodtr.training.run_files import CONFIG, find_checkpoint

EPOCHS = 3
SLOWER = 0.05
"""Factor on the first training's learning rate."""


def finetune_config(
    source: Path,
    pair_set: PairSet,
    options: RangeOptions,
    dialect: Dialect,
    preset: str | None = None,
    settings: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    *,
    track: Track = untracked,
) -> TrainConfig:
    """Calibrate `source`, a run's folder or a checkpoint, on what its training sees of `pair_set`, and make its
    training's configuration one of fine-tuning.

    `preset` is where the recipe is from; a run's folder has its own. Raises ConfigError when neither is there, or when
    the model has convolutions without batch normalisation.
    """
    checkpoint = find_checkpoint(source).resolve()
    _check_convolutions(read_info(checkpoint))
    if preset is None:
        if not (source / CONFIG).is_file():
            raise ConfigError(f"{source} does not record how it was trained. Name a run's folder, or add --preset.")
        preset = str(source / CONFIG)
    views = load_preset(preset, settings).validation_views  # reports errors in the settings before the work
    with float32_bundle(checkpoint, track) as exported:
        ranges = calibrate(exported, pool_of(pair_set.seen(views)), options, track=track).ranges
        convolutions = _convolutions(exported, ranges)
    recipe = load_preset(preset).recipe
    values = {
        "recipe.start": str(checkpoint),
        "recipe.pretrained": "none",
        "recipe.epochs": EPOCHS,
        "recipe.learning_rate": SLOWER * recipe.learning_rate,
        # A checkpoint has no networks that draw, and untrained ones would only disturb its own.
        "recipe.loss": "triplet" if recipe.loss == "adversarial" else recipe.loss,
        "machine.precision": "float32",
        "int8.convolutions": convolutions,
        "int8.weight_bits": 7 if dialect == "cpu-7bit" else 8,
        **(changes or {}),
    }
    explicit = {setting.partition("=")[0].strip() for setting in settings}
    return load_preset(preset, settings, {key: value for key, value in values.items() if key not in explicit})


def _check_convolutions(info: CheckpointInfo) -> None:
    """Raise ConfigError when the network has convolutions that training cannot round as an engine does."""
    network = outline(info.model, info.ground, info.aerial)
    unlike = [f"{branch}.{name}" for branch in BRANCHES for name in without_norm(network.branch(branch))]
    if unlike:
        raise ConfigError(
            f'finetune rounds convolutions together with the batch normalisation after them, as in the models "geodtr" '
            f'and "geodtr-plus" with a ResNet-34. This network has others, first {unlike[0]}. Keep more of its '
            "operators in float32 instead: build-engine --precision int8 --keep-cosine 0.999, or --precision auto."
        )


def _convolutions(exported: Bundle, ranges: Ranges) -> dict[str, Any]:
    """The ranges that each convolution reads and writes, by its module's name in the model."""
    convolutions = {}
    for branch in BRANCHES:
        graph = onnx.load(str(exported.path / exported.manifest.engine(branch).file))
        limits = cut_by_relu(graph, ranges[branch].activations)
        for operator in operators(graph):
            if operator.kind == "Conv":
                name = operator.weights.removeprefix("branch.").removesuffix(".weight")
                convolutions[f"{branch}.{name}"] = {"reads": limits[operator.reads], "writes": limits[operator.writes]}
    return convolutions
