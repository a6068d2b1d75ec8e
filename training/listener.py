"""Training events and the listener interface: for a progress bar, TensorBoard, or a test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geodtr.runtime.recall import Ranking, Recall
from geodtr.training.data.pair_set import Skipped
from geodtr.training.drawing import Drawing
from geodtr.training.evaluation.evaluate import DescriptorPair


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step. `number` counts from 1 to `total`, `epoch` from 0; `pairs` is the batch size.

    `losses` are by update. `gradient` is the gradient norm before clipping. `seconds` is the duration of the step;
    `waited` is the part of it spent waiting for images.
    """

    number: int
    total: int
    epoch: int
    epochs: int
    pairs: int
    losses: Mapping[str, float]
    gradient: float
    learning_rate: float
    seconds: float
    waited: float

    @property
    def loss(self) -> float:
        """The sum of `losses`."""
        return sum(self.losses.values())

    @property
    def ends_epoch(self) -> bool:
        return self.number * self.epochs == (self.epoch + 1) * self.total


@dataclass(frozen=True, slots=True)
class Validation:
    """Recall after `epoch` (from 0) and `step` (from 1), with the descriptors and ranking behind it."""

    epoch: int
    step: int
    recall: Recall
    best: bool
    descriptors: DescriptorPair
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class DrawingValidation:
    """The same of a network that draws."""

    epoch: int
    step: int
    drawing: Drawing
    best: bool


class Listener:
    """Receives all events in order. The default methods do nothing."""

    def on_start(self, step: int, total: int) -> None:
        """Training starts after `step` of `total` steps; `step` is above 0 for a resumed run."""

    def on_step(self, step: Step) -> None: ...

    def on_validation(self, validation: Validation) -> None: ...

    def on_drawing(self, validation: DrawingValidation) -> None: ...

    def on_skip(self, skipped: Skipped) -> None:
        """An image cannot be read; its pair is left out."""

    def on_end(self) -> None: ...


class Listeners(Listener):
    """Forwards each event to several listeners in order."""

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

    def on_drawing(self, validation: DrawingValidation) -> None:
        for listener in self._listeners:
            listener.on_drawing(validation)

    def on_skip(self, skipped: Skipped) -> None:
        for listener in self._listeners:
            listener.on_skip(skipped)

    def on_end(self) -> None:
        for listener in self._listeners:
            listener.on_end()
