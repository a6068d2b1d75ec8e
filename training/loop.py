"""The training loop: from pairs to a checkpoint, with breaks or without.

Source: Zhang et al., AAAI 2023, section 4.2. One configuration and seed give one result on one machine, whether a run
is interrupted and resumed or not; over several processes, the same up to the order of sums and the draws of dropout.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

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
from geodtr.training.pretrained import fill_backbones, read_backbone
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
            f"{out} holds no run that can go on: there is no {STATE}. Name the folder that `train` had as --out."
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
    recipe = config.recipe
    # What can be wrong is found out before any image is read.
    ranks.share(config.micro_batch)
    backbone = {} if saved else read_backbone(recipe.pretrained, config.model.backbone)
    fingerprint = _fingerprint(pair_set)
    images = PairImages(
        pair_set,
        {"ground": config.ground, "aerial": config.aerial},
        cache_bytes=config.machine.cache_gb * _GIGABYTE / ranks.count,
        track=track,
        on_skip=listener.on_skip,
    )
    if len(images) < recipe.batch_size:
        raise ConfigError(
            f"{pair_set.name} holds {len(images)} pairs, fewer than one batch of {recipe.batch_size}. Lower it: "
            f"--set recipe.batch_size={max(2, len(images))}"
        )
    with _own_random_numbers(ranks), noted_interruption() as interruption:
        per_epoch = len(images) // recipe.batch_size
        trainer = Trainer(config, ranks, total=recipe.epochs * per_epoch)
        run = _Run(out, trainer, pair_set.name, fingerprint, validation, listener)
        if saved is None:
            run.begin(backbone)
        else:
            run.go_on(saved)
        listener.on_start(trainer.step, trainer.total)
        for epoch in range(trainer.step // per_epoch, recipe.epochs):
            order = torch.randperm(len(images), generator=generator(recipe.seed, For.ORDER, epoch))
            batches = torch.split(order[: per_epoch * recipe.batch_size], recipe.batch_size)
            for step in trainer.steps(images, batches[trainer.step % per_epoch :], epoch):
                listener.on_step(step)
                if step.ends_epoch:
                    run.end_epoch(epoch)
                stop = ranks.any(bool(interruption)) and step.number < step.total
                if not step.ends_epoch and (stop or run.is_save_due()):
                    run.save()
                if stop:
                    raise TrainingInterrupted(
                        f"Stopped after step {step.number} of {step.total}. Go on with: geodtr-export resume {out}",
                        interruption.signal or 0,
                    )
        listener.on_end()
    return out / LAST


class _Run:
    """A run's folder: what is written into it, and when. Only the chief writes; the others wait for it."""

    def __init__(
        self,
        out: Path,
        trainer: Trainer,
        data: str,
        fingerprint: str,
        validation: PairSet | None,
        listener: Listener,
    ) -> None:
        self._out, self._trainer, self._data, self._fingerprint = out, trainer, data, fingerprint
        self._validation, self._listener = validation, listener
        self._best: float | None = None
        self._saved_at = time.monotonic()

    def begin(self, backbone: Mapping[str, Tensor]) -> None:
        """Start from fresh weights but for `backbone`; from here on the folder can be gone on with."""
        fill_backbones(self._trainer.model, backbone)
        if self._trainer.ranks.chief:
            write_bytes(self._out / FILE_NAME, encode_config(self._trainer.config))
        self.save()

    def go_on(self, saved: SavedRun) -> None:
        saved.restore(self._trainer.model, self._trainer.optimizer)
        self._trainer.scaler.load_state_dict(saved.state.scaler)
        self._trainer.step, self._best = saved.state.step, saved.state.best

    def is_save_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self._trainer.config.machine.save_minutes

    def save(self) -> None:
        """Write the state to go on from."""
        trainer = self._trainer
        if trainer.ranks.chief:
            state = RunState(
                step=trainer.step,
                total=trainer.total,
                pairs_sha256=self._fingerprint,
                best=self._best,
                scaler=trainer.scaler.state_dict(),
            )
            save_state(self._out / STATE, state, trainer.model, trainer.optimizer)
        self._saved_at = time.monotonic()

    def end_epoch(self, epoch: int) -> None:
        """Validate where it is due, and write the checkpoints and the state."""
        trainer, epochs = self._trainer, self._trainer.config.recipe.epochs
        if trainer.ranks.chief:
            origin = f"trained on {self._data}, {epoch + 1} of {epochs} epochs"
            due = (epoch + 1) % trainer.config.machine.validate_every == 0 or epoch + 1 == epochs
            if due and self._validation is not None and self._validate(epoch, self._validation):
                save_checkpoint(self._out / BEST, trainer.model, origin, self._data)
            # The state comes last: a run killed between two files repeats some steps and writes both again.
            save_checkpoint(self._out / LAST, trainer.model, origin, self._data)
            self.save()
        trainer.ranks.wait()

    def _validate(self, epoch: int, validation: PairSet) -> bool:
        """Measure recall; whether it is the best so far."""
        trainer = self._trainer
        descriptors = embed_pairs(embedders(trainer.model), validation)
        trainer.model.train()
        ranking = descriptors.ranking()
        measured = recall(ranking)
        best = self._best is None or measured.at_1 > self._best
        if best:
            self._best = measured.at_1
        self._listener.on_validation(Validation(epoch, trainer.step, measured, best, descriptors, ranking))
        return best


def _fingerprint(pair_set: PairSet) -> str:
    """SHA-256 of which pairs there are, in which order, whatever folder they now lie in."""
    names = "\n".join(f"{pair.ground.name}\t{pair.aerial.name}" for pair in pair_set.pairs)
    return sha256(names.encode()).hexdigest()


@contextmanager
def _own_random_numbers(ranks: Ranks) -> Iterator[None]:
    """Leave the caller's random numbers alone."""
    with torch.random.fork_rng(devices=[ranks.device] if ranks.device.type == "cuda" else []):
        yield
