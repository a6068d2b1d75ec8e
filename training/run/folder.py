"""The folder of a training run: which files are written, and when.

Knows the trainer and its files, but not how pairs form batches.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from torch import Tensor

from geodtr.runtime.errors import CheckpointError, UserError
from geodtr.runtime.files import locked, write_bytes
from geodtr.runtime.files import sha256 as hash_file
from geodtr.runtime.files.own_kinds import STATE
from geodtr.runtime.recall import recall
from geodtr.training.config import TrainConfig
from geodtr.training.data.pair_set import PairSet, Skipped
from geodtr.training.drawing import measure_drawing
from geodtr.training.evaluation.evaluate import embed_pairs
from geodtr.training.listener import DrawingValidation, Listener, Validation
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.fusiongan_stage1 import FusionGanStage1
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import encode_config, load_preset
from geodtr.training.run.interruption import Interruption
from geodtr.training.run.state import RunState, SavedRun, save_state
from geodtr.training.run_files import BEST, CONFIG, LAST, check_run
from geodtr.training.trainer import Trainer

T = TypeVar("T")
_READ_WHOLE = 1024  # of large data sets, to read all takes minutes


class TrainingInterrupted(UserError):
    """A signal stopped training between two steps; the resumable state is saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class RunFolder:
    """Writes the files of a run. Only rank 0 writes; the others wait for it."""

    def __init__(
        self,
        out: Path,
        trainer: Trainer,
        pair_set: PairSet,
        validation: PairSet | None,
        listener: Listener,
        interruption: Interruption,
    ) -> None:
        self._out, self._trainer, self._pair_set, self._validation = out, trainer, pair_set, validation
        self._listener, self._interruption = listener, interruption
        self._pairs_sha256 = ""
        self._best: float | None = None
        self._validation_due = False
        self._skipped = set[Path]()
        self._saved_at = time.monotonic()

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Load `weights`, leaving other parameters as initialised, and make the run resumable."""
        self._pairs_sha256 = pairs_sha256(self._pair_set)
        self._trainer.model.load_state_dict(dict(weights), strict=False)
        if self._trainer.ranks.is_rank_zero:
            write_bytes(self._out / CONFIG, encode_config(self._trainer.config))
        self.save()

    def resume(self, saved: SavedRun) -> None:
        """Restore the saved state. Raises CheckpointError when the number of readable images differs."""
        state, trainer = saved.state, self._trainer
        if state.total != trainer.total:
            raise CheckpointError(
                f"{self._pair_set.name} now gives a run of {trainer.total} steps, but {self._out} was started with "
                f"{state.total}: other images are readable now. Restore them, or train again with another --out."
            )
        saved.restore(trainer.networks, trainer.optimizer, trainer.memory)
        trainer.scaler.load_state_dict(state.scaler)
        trainer.step, self._best, self._validation_due = state.step, state.best, state.validation_due
        self._pairs_sha256 = state.pairs_sha256
        if trainer.ranks.is_rank_zero:
            for left_over in self._out.glob(".*.safetensors.*.safetensors"):
                left_over.unlink()

    def is_save_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self._trainer.config.machine.save_minutes

    def save(self) -> None:
        """Write the resumable state."""
        trainer = self._trainer
        if trainer.ranks.is_rank_zero:
            state = RunState(
                step=trainer.step,
                total=trainer.total,
                pairs_sha256=self._pairs_sha256,
                best=self._best,
                validation_due=self._validation_due,
                scaler=trainer.scaler.state_dict(),
            )
            save_state(self._out / STATE, state, trainer.networks, trainer.optimizer, trainer.memory)
        self._saved_at = time.monotonic()

    def end_epoch(self, epoch: int) -> None:
        """Write the checkpoint and the state, then validate if due."""
        trainer, epochs = self._trainer, self._trainer.config.recipe.epochs
        each = trainer.config.machine.validate_every
        self._validation_due = self._validation is not None and ((epoch + 1) % each == 0 or epoch + 1 == epochs)
        if trainer.ranks.is_rank_zero:
            # The state comes last: a run killed in between repeats some steps and writes both files again.
            save_checkpoint(self._out / LAST, trainer.model, self._origin(), self._pair_set.source)
            self.save()
        self.validate_if_due()

    def validate_if_due(self) -> None:
        """Measure the model, save it if it is the best so far, and record that validation is done."""
        trainer = self._trainer
        if self._validation_due and self._validation is not None and trainer.ranks.is_rank_zero:
            if self._validate(self._validation):
                save_checkpoint(self._out / BEST, trainer.model, self._origin(), self._pair_set.source)
            self._validation_due = False
            self.save()
        self._validation_due = False
        trainer.ranks.wait()

    def interrupted(self) -> TrainingInterrupted:
        """The error to raise after a signal, once the state is saved."""
        trainer = self._trainer
        return TrainingInterrupted(
            f"Stopped after step {trainer.step} of {trainer.total}. Resume with: geodtr-export resume {self._out}",
            self._interruption.signal or 0,
        )

    def _validate(self, validation: PairSet) -> bool:
        """Whether this is the best model so far, by R@1 with ties counted as misses: a collapsed model must not win.

        Of a network that draws, by the difference of its tiles to the real ones.
        """
        trainer, model = self._trainer, self._trainer.model

        def until_interrupted(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
            del description, total
            for item in items:
                if self._interruption:
                    raise self.interrupted()
                yield item

        if isinstance(model, FusionGanStage1):
            drawing = measure_drawing(model, validation, self._skip, until_interrupted)
            model.train()
            best = self._is_best(-drawing.l1)
            self._listener.on_drawing(DrawingValidation(self._epoch(), trainer.step, drawing, best))
            return best
        descriptors = embed_pairs(embedders(model), validation, track=until_interrupted)
        model.train()
        for skipped in descriptors.pair_set.skipped:
            self._skip(skipped)
        ranking = descriptors.ranking()
        measured = recall(ranking)
        best = self._is_best(measured.pessimistic_at_1)
        self._listener.on_validation(Validation(self._epoch(), trainer.step, measured, best, descriptors, ranking))
        return best

    def _skip(self, skipped: Skipped) -> None:
        if skipped.path not in self._skipped:
            self._skipped.add(skipped.path)
            self._listener.on_skip(skipped)

    def _is_best(self, figure: float) -> bool:
        best = self._best is None or figure > self._best
        if best:
            self._best = figure
        return best

    def _epoch(self) -> int:
        """The epoch that just ended, from 0."""
        trainer = self._trainer
        return trainer.step * trainer.config.recipe.epochs // trainer.total - 1

    def _origin(self) -> str:
        return f"trained on {self._pair_set.name}, {self._epoch() + 1} of {self._trainer.config.recipe.epochs} epochs"


@contextmanager
def held(out: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the folder `out` against other processes that would write the same files; one that stays empty is removed.

    Raises CheckpointError when another process holds it.
    """
    if not ranks.is_rank_zero:
        yield
        return
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out) as lock:
            if lock == "another's":
                raise CheckpointError(f"{out} is in use: another process trains it. Stop it, or wait until it ends.")
            yield
    finally:
        if new:
            with suppress(OSError):  # not empty
                out.rmdir()


def read_run(out: Path) -> TrainConfig:
    """The configuration of the run in `out`. Raises CheckpointError when it holds no resumable run."""
    check_run(out)
    return load_preset(str(out / CONFIG))


def pairs_sha256(pair_set: PairSet) -> str:
    """SHA-256 of what the pairs are, in order, independent of their folder: the names and sizes of their files, the
    contents of up to `_READ_WHOLE` of them, spread over the set, positions, views, and what other tiles are right or
    half so. A file that cannot be read has size -1.
    """
    digest = sha256()
    files = [file for pair in pair_set.pairs for file in (pair.ground, pair.aerial)]
    read_whole = set(np.linspace(0, len(files) - 1, min(len(files), _READ_WHOLE), dtype=int).tolist())
    for row, file in enumerate(files):
        try:
            size, content = file.stat().st_size, hash_file(file) if row in read_whole else ""
        except OSError:  # reported when training reads it
            size, content = -1, ""
        digest.update(f"{file.name}\t{size}\t{content}\n".encode())
    for pair in pair_set.pairs:
        others = [[tile.name for tile in tiles] for tiles in (pair.positives, pair.semi_positives)]
        view = None if pair.view is None else astuple(pair.view)
        digest.update(msgspec.json.encode((pair.lat, pair.lon, pair.heading, pair.utm, others, view)))
    return digest.hexdigest()
