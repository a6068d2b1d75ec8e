"""Measure full-size training against a plain PyTorch loop (benchmarks/training.py) on the same images."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from geodtr.runtime.names import Branch
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import KINDS
from geodtr.training.pair_images import PairImages
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.trainer import Trainer
from gpu.report import Report
from gpu.setting import Setting

_CVUSA_PAIRS, _CVUSA_EPOCHS = 35_532, 200
_WARM_UP = 3
_HELD = 8e9
_BF16, _COMPILED = "machine.precision=bf16", "machine.compile=true"


@dataclass(frozen=True)
class _Loop:
    """`make(waited)` starts the loop; it appends the share of each step spent waiting for images to `waited`."""

    name: str
    make: Callable[[list[float]], Iterator[None]]


def run(report: Report, setting: Setting) -> None:
    pair_set = setting.world(setting.size.preset, setting.size.pairs)
    report.fact("pairs a step", setting.size.batch)
    for loop in _loops(setting, pair_set):
        waited = list[float]()
        on_gpu = setting.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        steps = loop.make(waited)
        for _ in islice(steps, _WARM_UP):
            pass
        warm = time.perf_counter() - start
        waited.clear()
        rates = _rates(steps, setting, torch.cuda.synchronize if on_gpu else lambda: None)
        speed = statistics.median(rates)
        epochs = _CVUSA_EPOCHS * (_CVUSA_PAIRS // setting.size.batch) * setting.size.batch
        report.row(
            "Loops",
            loop=loop.name,
            **{"images/s": 2 * speed},
            lowest=2 * min(rates),
            highest=2 * max(rates),
            waiting_for_images=statistics.median(waited) if waited else None,
            GiB_of_GPU_memory=torch.cuda.max_memory_reserved() / 2**30 if on_gpu else None,
            seconds_to_the_third_step=warm,
            hours_for_CVUSA=epochs / speed / 3600,
        )
        del steps
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()


def _rates(steps: Iterator[None], setting: Setting, finish: Callable[[], None]) -> list[float]:
    """Pairs per second in each round."""
    rates = []
    for _ in range(setting.size.rounds):
        finish()
        start = time.perf_counter()
        for _ in islice(steps, setting.size.steps):
            pass
        finish()
        rates.append(setting.size.steps * setting.size.batch / (time.perf_counter() - start))
    return rates


def _loops(setting: Setting, pair_set: PairSet) -> Iterator[_Loop]:
    """The loops to compare. Compiled ones come last: their first step takes a minute."""
    from training import plain_batches, plain_loop, write_plain

    config = setting.config("machine.precision=float32")

    def ours(name: str, *settings: str, files: bool = False) -> _Loop:
        def make(waited: list[float]) -> Iterator[None]:
            from training import our_loop

            own = setting.config("machine.precision=float32", *settings)
            images = PairImages(
                _as_cvusa(pair_set, setting.work / "jpeg") if files else pair_set,
                {"ground": own.ground, "aerial": own.aerial},
                cache_bytes=0 if files else _HELD,
                pinned=setting.device.type == "cuda",
            )
            return our_loop(Trainer(own, Ranks(), total=10**6), images, waited)

        return _Loop(f"ours, {name}", make)

    def plain(name: str, half: bool = False, compiled: bool = False) -> _Loop:
        def make(_waited: list[float]) -> Iterator[None]:
            folder = setting.work / "plain"
            if not folder.exists():
                write_plain(folder, pair_set, config)
            batches = plain_batches(config, folder, len(pair_set), setting.device)
            return plain_loop(config, batches, setting.device, half=half, compiled=compiled)

        return _Loop(f"plain PyTorch, {name}", make)

    yield ours("bf16", _BF16)
    yield ours("bf16, CVUSA's JPEGs decoded every epoch", _BF16, files=True)
    yield plain("float32")
    yield ours("float32")
    yield plain("bf16", half=True)
    if setting.dry:
        return
    yield ours("bf16, compiled", _BF16, _COMPILED)
    yield plain("bf16, compiled", half=True, compiled=True)
    yield plain("float32, compiled", compiled=True)


def _as_cvusa(pair_set: PairSet, folder: Path) -> PairSet:
    """Write the pairs as JPEG files with CVUSA's image sizes."""

    def written(path: Path, branch: Branch) -> Path:
        out = folder / branch / f"{path.stem}.jpg"
        out.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert("RGB").resize(KINDS["cvusa"].sizes[branch]).save(out, quality=90)
        return out

    pairs = (
        replace(pair, ground=written(pair.ground, "ground"), aerial=written(pair.aerial, "aerial"))
        for pair in pair_set.pairs
    )
    return PairSet("jpeg", tuple(pairs))
