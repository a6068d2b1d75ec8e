"""The training loop: train a checkpoint from pairs, and resume an interrupted run.

Source: Zhang et al., AAAI 2023, section 4.2. On a CPU, a configuration and seed determine the result; interrupting and
resuming does not change it. With several processes it differs by the order of sums and the draws of dropout.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import msgspec
import torch

from geodtr.runtime.errors import CheckpointError, ConfigError, DataError, ImageError
from geodtr.runtime.files import check_new_folder
from geodtr.runtime.files.own_kinds import STATE
from geodtr.runtime.images.decode import decode, image_size
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.progress import Track, untracked
from geodtr.training.config import TrainConfig
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.views import FULL_TURN, check_full_turn, full_panorama, load_query
from geodtr.training.listener import Listener
from geodtr.training.memory import check_memory
from geodtr.training.models.registry import outline
from geodtr.training.pair_images import PairImages
from geodtr.training.parallel.distributed import Ranks, join_ranks
from geodtr.training.pretrained.weights import first_weights
from geodtr.training.run.folder import RunFolder, held, pairs_sha256, read_run
from geodtr.training.run.interruption import defer_signals
from geodtr.training.run.pair_order import PairOrder
from geodtr.training.run.state import SavedRun, is_finished, load_state
from geodtr.training.run_files import LAST
from geodtr.training.trainer import Trainer

_GIGABYTE = 1e9
_SAMPLE = 16
_SAME_ASPECT = 0.02


def train(
    config: TrainConfig,
    pair_set: PairSet,
    out: Path,
    *,
    validation: PairSet | None = None,
    track: Track = untracked,
    listener: Listener | None = None,
) -> Path:
    """Train a model on a GPU if there is one, on all processes that torchrun started.

    Writes config.toml, last.safetensors, the state for `resume`, and with `validation` also best.safetensors.

    Parameters
    ----------
    out
        Folder of the run; new or empty.
    validation
        Pairs to measure recall on during training.

    Returns
    -------
    Path of last.safetensors.

    Raises
    ------
    OutputExists
        `out` is not empty.
    ConfigError
        The pairs do not fill one batch, or would be rolled and are no full panoramas.
    CheckpointError
        Another process trains in `out`.
    DataError
        No image can be read.
    ImageError
        Views are to be cut of an image that is no full turn.
    TrainingDiverged
        The loss is not finite.
    TrainingInterrupted
        SIGINT or SIGTERM was received. The state is saved.
    """
    with join_ranks() as ranks:
        if ranks.is_rank_zero:
            check_new_folder(out)
        ranks.wait()
        config = _with_imagery(config, pair_set)
        with held(out, ranks):
            return _run(config, pair_set, out, validation, None, ranks, track, listener or Listener())


def resume(
    out: Path,
    pair_set: PairSet,
    *,
    validation: PairSet | None = None,
    track: Track = untracked,
    listener: Listener | None = None,
) -> Path:
    """Resume the run in `out`; the result equals an uninterrupted run's. A finished run is left unchanged.

    Raises CheckpointError when `out` holds no run, another process trains it, or it was trained on pairs other than
    `pair_set`, by the names and sizes of their files, the contents of up to 1,024 of them, and their positions.
    """
    config = read_run(out)
    with join_ranks() as ranks, held(out, ranks):
        saved = load_state(out / STATE)
        if is_finished(saved.state):
            return out / LAST
        if saved.state.pairs_sha256 != pairs_sha256(pair_set):
            raise CheckpointError(
                f"{pair_set.name} no longer lists the pairs of run {out.name}, or some of its files are missing or "
                "have other contents. Restore it, or train again with another --out."
            )
        return _run(config, pair_set, out, validation, saved, ranks, track, listener or Listener())


def _run(
    config: TrainConfig,
    pair_set: PairSet,
    out: Path,
    validation: PairSet | None,
    saved: SavedRun | None,
    ranks: Ranks,
    track: Track,
    listener: Listener,
) -> Path:
    recipe = config.recipe
    ranks.share(config.micro_batch)
    if validation is not None:
        validation = validation.seen(config.validation_views)
    # Check the configuration before reading any image.
    config.check_rolls()
    check_memory(config, ranks)
    weights = {} if saved else first_weights(config)
    _check_sets(config, pair_set, validation)
    with _forked_rng(ranks), defer_signals() as interruption:
        trainer = Trainer(config, ranks)
        ground = config.ground
        if recipe.fields:
            ground = full_panorama(ground, min(recipe.fields), trainer.model.specs["ground"].scorer)
        images = PairImages(
            pair_set,
            {"ground": ground, "aerial": config.aerial},
            cache_bytes=config.machine.cache_gb * _GIGABYTE / ranks.count,
            pinned=ranks.device.type == "cuda",
            track=track,
            on_skip=listener.on_skip,
        )
        if ranks.is_rank_zero:
            for skipped in images.pair_set.skipped[len(pair_set.skipped) :]:
                listener.on_skip(skipped)
        order = PairOrder(out, trainer, images)
        per_epoch = order.per_epoch
        if not per_epoch:
            raise _too_few(images.pair_set, recipe.batch_size)
        trainer.total = recipe.epochs * per_epoch
        run = RunFolder(out, trainer, pair_set, validation, listener, interruption)
        if saved is None:
            run.begin(weights)
        else:
            run.resume(saved)
        listener.on_start(trainer.step, trainer.total)
        run.validate_if_due()
        for epoch in range(trainer.step // per_epoch, recipe.epochs):
            batches = order.batches(epoch)
            for step in trainer.steps(images, batches[trainer.step % per_epoch :], epoch):
                listener.on_step(step)
                if step.ends_epoch:
                    run.end_epoch(epoch)
                stop = ranks.any(bool(interruption)) and step.number < step.total
                if not step.ends_epoch and (stop or run.is_save_due()):
                    run.save()
                if stop:
                    raise run.interrupted()
        listener.on_end()
    return out / LAST


def _with_imagery(config: TrainConfig, pair_set: PairSet) -> TrainConfig:
    """The configuration with what the model is to see of the panoramas: bundles record it.

    The aspect is measured where the panoramas' is not as it states. Several fields of view are not stated.
    """
    imagery, fields = config.ground.imagery, config.recipe.fields
    aspect, seen = imagery.aspect, imagery.field_of_view or FULL_TURN
    of_all = None if aspect is None else aspect * FULL_TURN / seen if fields else aspect
    if pair_set.made_from is None:  # prepared images keep nothing of the original's shape
        measured = _aspect(pair_set)
        if measured is not None and (of_all is None or abs(measured / of_all - 1) >= _SAME_ASPECT):
            of_all = round(measured, 3)
    if len(fields) > 1:
        imagery = msgspec.structs.replace(imagery, aspect=None, field_of_view=None)
    elif fields:
        share = fields[0] / FULL_TURN
        aspect = None if of_all is None else round(of_all * share, 3)
        imagery = msgspec.structs.replace(imagery, aspect=aspect, field_of_view=fields[0])
    else:
        imagery = msgspec.structs.replace(imagery, aspect=of_all)
    return msgspec.structs.replace(config, ground=msgspec.structs.replace(config.ground, imagery=imagery))


def _aspect(pair_set: PairSet) -> float | None:
    """The median of the first ground images; None where none can be read."""
    aspects = list[float]()
    for pair in pair_set.pairs[:_SAMPLE]:
        with suppress(ImageError):  # reported when training reads it
            height, width = image_size(pair.ground)
            aspects.append(width / height)
    return median(aspects) if aspects else None


def _check_sets(config: TrainConfig, pair_set: PairSet, validation: PairSet | None) -> None:
    if len(pair_set) < config.recipe.batch_size:
        raise _too_few(pair_set, config.recipe.batch_size)
    if len(set(pair_set.places.tolist())) < 2:
        raise DataError(f"All pairs of {pair_set.name} share one tile; training needs at least two tiles.")
    for pair in pair_set.pairs[:_SAMPLE] if config.recipe.fields else ():
        try:
            image = decode(pair.ground)
        except ImageError:  # reported when training reads it
            continue
        check_full_turn(pair.ground, image)
    if validation is None:
        return
    if len(validation.references) < 2:
        raise DataError(f"{validation.name} holds one tile; validation ranks tiles and needs at least two.")
    # One readable pair shows that the images suit the model.
    scorer = outline(config.model, config.ground, config.aerial).specs["ground"].scorer
    for pair in validation.pairs[:_SAMPLE]:
        try:
            load_query(pair.ground, pair.view, config.ground, scorer)
            load_image(pair.aerial, config.aerial)
            return
        except ImageError as error:
            last = error
    raise DataError(f"None of the first pairs of {validation.name} can be used for validation: {last}")


def _too_few(pair_set: PairSet, batch_size: int) -> ConfigError:
    count = len(pair_set)
    if count < 2:
        return ConfigError(f"{pair_set.name} holds one pair, and training needs several. Name another data set.")
    return ConfigError(
        f"{pair_set.name} holds {count} pairs, fewer than one batch of {batch_size}. Lower it: "
        f"--set recipe.batch_size={count}"
    )


@contextmanager
def _forked_rng(ranks: Ranks) -> Iterator[None]:
    """Restore the caller's random state afterwards."""
    with torch.random.fork_rng(devices=[ranks.device] if ranks.device.type == "cuda" else []):
        yield
