"""The training loop: from pairs to a checkpoint, with breaks or without.

Source: Zhang et al., AAAI 2023, section 4.2. One configuration and seed give one result on one machine, whether a run
is interrupted and resumed or not; over several processes, the same up to the order of sums.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import torch

from geodtr.runtime.errors import CheckpointError, ConfigError, UserError
from geodtr.runtime.files import refuse_existing, write_bytes
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.recall import recall
from geodtr.training.chance import For, generator
from geodtr.training.checkpoint import BEST, LAST, save_checkpoint
from geodtr.training.config import FILE_NAME, TrainConfig, encode_config, load_preset
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluate import embed_pairs
from geodtr.training.interruption import noted_interruption
from geodtr.training.listener import Listener, Validation
from geodtr.training.models.embedder import embedders
from geodtr.training.pair_images import PairImages
from geodtr.training.ranks import Ranks, join_ranks
from geodtr.training.run_state import FILE_NAME as STATE
from geodtr.training.run_state import RunState, SavedRun, load_state, save_state
from geodtr.training.trainer import Trainer

_GIGABYTE = 1e9


class TrainingInterrupted(UserError):
    """A signal stopped training between two steps; the state to go on from is saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


def train(
    config: TrainConfig,
    pair_set: PairSet,
    out: Path,
    *,
    validation: PairSet | None = None,
    track: Track = untracked,
    listener: Listener | None = None,
) -> Path:
    """Train a model; leaves in `out` config.toml, last.safetensors (returned), best.safetensors where `validation` is
    given, and what `resume` needs.

    Uses a GPU where there is one, and all processes that torchrun started. Raises OutputExists when `out` holds
    anything, ConfigError when the pairs do not fill one batch, DataError when no image can be read, TrainingDiverged,
    TrainingInterrupted on SIGINT or SIGTERM.
    """
    with join_ranks() as ranks:
        if ranks.chief:
            refuse_existing(out)
        ranks.wait()
        return _run(config, pair_set, out, validation, None, ranks, track, listener or Listener())


def resume(
    out: Path,
    pair_set: PairSet,
    *,
    validation: PairSet | None = None,
    track: Track = untracked,
    listener: Listener | None = None,
) -> Path:
    """Go on with the run in `out` as if it had never stopped; a finished one is left as it is.

    Raises CheckpointError when `out` holds no run, or `pair_set` is not what it was trained on.
    """
    config = read_run(out)
    saved = load_state(out / STATE)
    if saved.state.step == saved.state.total:
        return out / LAST
    if saved.state.pairs_sha256 != _fingerprint(pair_set):
        raise CheckpointError(
            f"{pair_set.name} no longer lists the {out.name} run's pairs, or not all its files are there. Restore it, "
            "or train anew into another folder."
        )
    with join_ranks() as ranks:
        return _run(config, pair_set, out, validation, saved, ranks, track, listener or Listener())


def read_run(out: Path) -> TrainConfig:
    """The configuration of the run in `out`. Raises CheckpointError when it holds none that can go on."""
    if not (out / STATE).is_file():
        raise CheckpointError(
            f"{out} holds no run that can go on: there is no {STATE}. It stopped before its first save, or is no run."
        )
    return load_preset(str(out / FILE_NAME))


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
    recipe, machine = config.recipe, config.machine
    ranks.share(config.micro_batch)
    fingerprint = _fingerprint(pair_set)
    images = PairImages(
        pair_set,
        {"ground": config.ground, "aerial": config.aerial},
        cache_bytes=machine.cache_gb * _GIGABYTE / ranks.count,
        track=track,
        on_skip=listener.on_skip,
    )
    if len(images) < recipe.batch_size:
        raise ConfigError(
            f"{pair_set.name} holds {len(images)} pairs, fewer than one batch of {recipe.batch_size}. Lower it: "
            f"--set recipe.batch_size={max(2, len(images))}"
        )
    with _own_random_numbers(ranks):
        trainer = Trainer(config, ranks, total=recipe.epochs * (len(images) // recipe.batch_size))
        best: float | None = None
        if saved is not None:
            saved.restore(trainer.model, trainer.optimizer)
            trainer.scaler.load_state_dict(saved.state.scaler)
            trainer.step, best = saved.state.step, saved.state.best
        per_epoch = trainer.total // recipe.epochs

        def save() -> None:
            if ranks.chief:
                state = RunState(
                    step=trainer.step,
                    total=trainer.total,
                    pairs_sha256=fingerprint,
                    best=best,
                    scaler=trainer.scaler.state_dict(),
                )
                save_state(out / STATE, state, trainer.model, trainer.optimizer)

        if ranks.chief and saved is None:
            write_bytes(out / FILE_NAME, encode_config(config))
        listener.on_start(trainer.step, trainer.total)
        saved_at = time.monotonic()
        with noted_interruption() as interruption:
            for epoch in range(trainer.step // per_epoch, recipe.epochs):
                order = torch.randperm(len(images), generator=generator(recipe.seed, For.ORDER, epoch))
                batches = torch.split(order[: per_epoch * recipe.batch_size], recipe.batch_size)
                batches = batches[trainer.step % per_epoch :]
                for step in trainer.steps(images, batches, epoch):
                    listener.on_step(step)
                    if ranks.any(bool(interruption)):
                        save()
                        raise TrainingInterrupted(
                            f"Stopped after step {trainer.step} of {trainer.total}. Go on with: "
                            f"geodtr-export resume {out}",
                            interruption.signal or 0,
                        )
                    if not step.ends_epoch and time.monotonic() - saved_at > 60 * machine.save_minutes:
                        save()
                        saved_at = time.monotonic()
                if ranks.chief:
                    origin = f"trained on {pair_set.name}, {epoch + 1} of {recipe.epochs} epochs"
                    if validation is not None and _validates(epoch, config):
                        measured = _validate(trainer, validation, epoch, best)
                        if measured.best:
                            best = measured.recall.at_1
                            save_checkpoint(out / BEST, trainer.model, origin, pair_set.name)
                        listener.on_validation(measured)
                    # The state comes last: a run killed between two files repeats this epoch and writes both again.
                    save_checkpoint(out / LAST, trainer.model, origin, pair_set.name)
                    save()
                    saved_at = time.monotonic()
                ranks.wait()
        listener.on_end()
    return out / LAST


def _validates(epoch: int, config: TrainConfig) -> bool:
    return (epoch + 1) % config.machine.validate_every == 0 or epoch + 1 == config.recipe.epochs


def _validate(trainer: Trainer, validation: PairSet, epoch: int, best: float | None) -> Validation:
    descriptors = embed_pairs(embedders(trainer.model), validation)
    trainer.model.train()
    measured = recall(descriptors.ranking())
    return Validation(epoch, trainer.step, measured, best is None or measured.at_1 > best, descriptors)


def _fingerprint(pair_set: PairSet) -> str:
    """SHA-256 of which pairs there are, in which order, whatever folder they now lie in."""
    names = "\n".join(f"{pair.ground.name}\t{pair.aerial.name}" for pair in pair_set.pairs)
    return sha256(names.encode()).hexdigest()


@contextmanager
def _own_random_numbers(ranks: Ranks) -> Iterator[None]:
    """Leave the caller's random numbers alone."""
    with torch.random.fork_rng(devices=[ranks.device] if ranks.device.type == "cuda" else []):
        yield
