"""A run's figures and retrieval pictures for TensorBoard."""

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from geodtr.export.plots.sheets.retrieval import draw_sheet, retrieved
from geodtr.training.data.counting import countings
from geodtr.training.listener import DrawingValidation, Listener, Step, Validation

_QUERIES, _TILES = 6, 5


class TensorBoard(Listener):
    """Writes scalars after every step, figures and a picture after every validation, into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def on_start(self, step: int, total: int) -> None:
        del total
        # What a killed run wrote beyond its last save is written again: TensorBoard drops the older points.
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)

    def on_step(self, step: Step) -> None:
        assert self._writer is not None
        for name, value in (
            ("train/loss", step.loss),
            *((f"train/loss_{update}", loss) for update, loss in step.losses.items() if len(step.losses) > 1),
            ("train/gradient_norm", step.gradient),
            ("train/learning_rate", step.learning_rate),
            ("speed/pairs_per_second", step.pairs / step.seconds),
            ("speed/share_waiting_for_images", step.waited / step.seconds),
        ):
            self._writer.add_scalar(name, value, step.number)

    def on_validation(self, validation: Validation) -> None:
        assert self._writer is not None
        figures = validation.recall
        for name, value in (
            ("at_1", figures.at_1),
            ("at_5", figures.at_5),
            ("at_10", figures.at_10),
            ("at_1_percent", figures.at_1_percent),
            ("pessimistic_at_1", figures.pessimistic_at_1),
            ("tied", figures.tied),
            ("alike", figures.alike),
        ):
            self._writer.add_scalar(f"validation/{name}", value, validation.step)
        counting = countings(validation.descriptors.pair_set)[0]
        rows = retrieved(validation.descriptors, counting, validation.ranking, "validation", _QUERIES, _TILES)
        sheet = np.asarray(draw_sheet(rows, f"After epoch {validation.epoch + 1}"))
        self._writer.add_image("validation/retrieval", sheet, validation.step, dataformats="HWC")
        self._writer.flush()

    def on_drawing(self, validation: DrawingValidation) -> None:
        assert self._writer is not None
        drawing = validation.drawing
        self._writer.add_scalar("validation/l1", drawing.l1, validation.step)
        self._writer.add_scalar("validation/l1_of_others", drawing.l1_of_others, validation.step)
        self._writer.add_image("validation/drawn", drawing.sheet, validation.step, dataformats="HWC")
        self._writer.flush()
