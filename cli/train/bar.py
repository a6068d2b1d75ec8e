"""How training looks in a terminal: a bar with loss, rate and time left; plain lines where there is none."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from geodtr.cli.console import messages, percent, progress_bar, warn_of_collapse
from geodtr.training.listener import DrawingValidation, Listener, Step, Validation

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from geodtr.training.data.pair_set import Skipped

_SHOWN_SKIPPED = 3


class LeftOut(Listener):
    """Prints the first images that cannot be used. Processes other than rank 0 print nothing else."""

    def __init__(self) -> None:
        self._skipped = 0

    def on_skip(self, skipped: "Skipped") -> None:
        self._skipped += 1
        if self._skipped <= _SHOWN_SKIPPED:
            messages.print(f"Left out with its pair: {skipped.reason}")

    def on_end(self) -> None:
        if self._skipped > _SHOWN_SKIPPED:
            messages.print(f"{self._skipped} images were left out; geodtr-export data check SPEC lists them.")


class TrainingBar(LeftOut):
    """A bar that appears with the first step and goes with the last."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._epoch: list[Step] = []

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def on_start(self, step: int, total: int) -> None:
        if step:
            messages.print(f"Going on after step {step} of {total}.")
        self._bar = self._stack.enter_context(progress_bar())
        self._task = self._bar.add_task("Training", total=total, completed=step)

    def on_step(self, step: Step) -> None:
        self._epoch.append(step)
        if self._bar is not None and self._task is not None:
            recent = self._epoch[-20:]
            rate = sum(each.pairs for each in recent) / sum(each.seconds for each in recent)
            self._bar.update(
                self._task,
                completed=step.number,
                description=f"Epoch {step.epoch + 1}/{step.epochs}, {_losses([step])}, {rate:.0f} pairs/s",
            )
        if step.ends_epoch:
            if not messages.is_terminal:
                messages.print(_line(self._epoch))
            self._epoch.clear()

    def on_validation(self, validation: Validation) -> None:
        got = validation.recall
        figures = (("R@1", got.at_1), ("R@5", got.at_5), ("R@10", got.at_10), ("R@1%", got.at_1_percent))
        shown = ", ".join(f"{name} {percent(share)}" for name, share in figures)
        best = " (best)" if validation.best else ""
        messages.print(f"Validation after epoch {validation.epoch + 1}: {shown}{best}")
        warn_of_collapse(f"Epoch {validation.epoch + 1}", got)

    def on_drawing(self, validation: DrawingValidation) -> None:
        drawing, best = validation.drawing, " (best)" if validation.best else ""
        messages.print(
            f"Validation after epoch {validation.epoch + 1}: L1 {drawing.l1:.4f} to the pair's tile, "
            f"{drawing.l1_of_others:.4f} to another's{best}"
        )

    def on_end(self) -> None:
        self._stack.close()
        super().on_end()


def _line(epoch: list[Step]) -> str:
    """An epoch in words; `epoch` holds its steps, or those since the run went on."""
    last, seconds = epoch[-1], sum(step.seconds for step in epoch)
    left = (last.total - last.number) * seconds / len(epoch)
    waited = sum(step.waited for step in epoch) / seconds
    return (
        f"Training: epoch {last.epoch + 1} of {last.epochs}, {_losses(epoch)}, "
        f"{sum(step.pairs for step in epoch) / seconds:.0f} pairs/s, {percent(waited)} % waiting for images, "
        f"{left / 60:.1f} min left"
    )


def _losses(steps: list[Step]) -> str:
    """Their mean loss, with the mean of each update where a step has several."""
    means = {name: sum(step.losses[name] for step in steps) / len(steps) for name in steps[0].losses}
    parts = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    return f"loss {sum(means.values()):.4f}{f' ({parts})' if len(means) > 1 else ''}"
