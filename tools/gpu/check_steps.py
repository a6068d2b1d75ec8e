"""Compare the first training steps on the CPU and on the GPU, with the same images and draws, without dropout.

Dropout draws differ between devices, so it is disabled. Rounding differences remain and grow from step to step.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from geodtr.training.config import TrainConfig
from geodtr.training.models.embedder import exact_float32
from geodtr.training.pair_images import PairImages
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.trainer import Trainer
from gpu.report import Report
from gpu.setting import SMALL, Setting

_FIRST, _FIRST_GRADIENT, _LATER = 1e-4, 1e-3, 1e-2
"""Allowed relative differences: of the first step's loss, of its gradient norm, and of later losses."""
_OTHERS = ("machine.precision=float32", "machine.precision=bf16", "machine.precision=fp16")


class _OnCpu(Ranks):
    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


def run(report: Report, setting: Setting) -> None:
    cases = ((SMALL, 16, 8), (setting.size.preset, 8, 3))
    for preset, batch, steps in ((SMALL, 4, 2),) if setting.dry else cases:
        settings = (f"recipe.batch_size={batch}", "model.dropout=0.0", "machine.precision=float32")
        config = setting.config(*settings, preset=preset)
        pair_set = setting.world(preset, 2 * batch)
        images = PairImages(pair_set, {"ground": config.ground, "aerial": config.aerial}, cache_bytes=1e9)
        expected, got = (_steps(config, images, ranks, steps) for ranks in (_OnCpu(), Ranks()))
        for number, (cpu, gpu) in enumerate(zip(expected, got, strict=True), 1):
            loss, gradient = (abs(ours / theirs - 1) for ours, theirs in zip(gpu, cpu, strict=True))
            report.row(
                "Steps", preset=preset, step=number, loss_on_the_CPU=cpu[0], loss_off_by=loss, gradient_off_by=gradient
            )
            allowed, what = (_FIRST, "first") if number == 1 else (_LATER, f"step {number}'s")
            report.require(loss <= allowed, f"{preset}: the {what} loss is off by {loss:.1e}, allowed {allowed:.0e}")
            if number == 1:
                report.require(gradient <= _FIRST_GRADIENT, f"{preset}: the first gradient is off by {gradient:.1e}")
        for other in _OTHERS:
            config = setting.config(*settings, other, preset=preset)
            ((loss, gradient),) = _steps(config, images, Ranks(), 1, exact=False)
            report.row(
                "The first step in other arithmetic, PyTorch's own defaults",
                preset=preset,
                setting=other,
                loss_off_by=abs(loss / expected[0][0] - 1),
                gradient_off_by=abs(gradient / expected[0][1] - 1),
            )


def _steps(
    config: TrainConfig, images: PairImages, ranks: Ranks, count: int, exact: bool = True
) -> Sequence[tuple[float, float]]:
    """Loss and gradient norm of each of the first steps."""
    batch = config.recipe.batch_size
    batches = [(torch.arange(batch) + number) % len(images) for number in range(count)]
    with exact_float32() if exact else nullcontext():
        trainer = Trainer(config, ranks, total=100)
        return [(step.loss, step.gradient) for step in trainer.steps(images, batches, epoch=0)]
