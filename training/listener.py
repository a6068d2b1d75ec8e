"""What training tells whoever listens: a progress bar, TensorBoard, a test."""

from collections.abc import Sequence
from dataclasses import dataclass

from geodtr.runtime.recall import Ranking, Recall
from geodtr.training.data.pair_set import Skipped
from geodtr.training.evaluation.evaluate import DescriptorPair


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step. `number` counts from 1 to `total`, `epoch` from 0; `pairs` is the batch's size.

    `gradient` is the gradients' norm before clipping. `seconds` is what the step took; for `waited` of them it stood
    still for want of images.
    """

    number: int
    total: int
    epoch: int
    epochs: int
    pairs: int
    loss: float
    gradient: float
    learning_rate: float
    seconds: float
    waited: float

    @property
    def ends_epoch(self) -> bool:
        return self.number * self.epochs == (self.epoch + 1) * self.total


@dataclass(frozen=True, slots=True)
class Validation:
    """Recall after `epoch` (from 0) and `step` (from 1), with the descriptors and ranking it was measured on."""

    epoch: int
    step: int
    recall: Recall
    best: bool
    descriptors: DescriptorPair
    ranking: Ranking


class Listener:
    """Told of everything, in order; by default it does nothing."""

    def on_start(self, step: int, total: int) -> None:
        """Training begins after `step` of `total` steps: above 0 when a run goes on."""

    def on_step(self, step: Step) -> None: ...

    def on_validation(self, validation: Validation) -> None: ...

    def on_skip(self, skipped: Skipped) -> None:
        """An image could not be read; its pair is left out."""

    def on_end(self) -> None: ...


class Listeners(Listener):
    """Several listeners as one, told in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def on_start(self, step: int, total: int) -> None:
        for listener in self._listeners:
            listener.on_start(step, total)

    def on_step(self, step: Step) -> None:
        for listener in self._listeners:
            listener.on_step(step)

    def on_validation(self, validation: Validation) -> None:
        for listener in self._listeners:
            listener.on_validation(validation)

    def on_skip(self, skipped: Skipped) -> None:
        for listener in self._listeners:
            listener.on_skip(skipped)

    def on_end(self) -> None:
        for listener in self._listeners:
            listener.on_end()
