"""Build engines of one backend in all precisions with the command line, check parity, and measure speed.

Each command runs in its own process, so that a driver crash does not lose the figures of others.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geodtr.export.model import open_branch
from geodtr.export.timing import time_embedders
from geodtr.runtime.names import Branch, Precision
from geodtr.runtime.spec import Embedder, noise
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import FromPixels, TorchEmbedder, from_pixels
from gpu.report import Report
from gpu.setting import Setting

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "fp8")
_BRANCH: Branch = "ground"
_MESSAGE_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Backend:
    """`how`: the options for `build-engine`."""

    name: str
    how: tuple[str, ...]
    precisions: tuple[Precision, ...] = PRECISIONS


def run_engines(report: Report, setting: Setting, backend: Backend) -> None:
    """Check parity of the small model's engines, and time the full-size network's."""
    train_set, unseen = (f"pairs:{each.pairs[0].ground.parents[1]}" for each in setting.small_sets())
    for precision in backend.precisions:
        out = setting.work / f"{backend.name}-{precision}-small"
        seconds = _build(report, setting.small_run(), out, backend, precision, train_set)
        if seconds is not None:
            _parity(report, setting.small_run(), out, unseen, precision, seconds)
    checkpoint = setting.full_checkpoint()
    images = f"pairs:{setting.world(setting.size.preset, 16).pairs[0].ground.parents[1]}"
    model = load_checkpoint(checkpoint).model.to(setting.device).eval()
    network, spec = from_pixels(model, _BRANCH), model.specs[_BRANCH]
    eager, half = TorchEmbedder(network, spec), _Half(network)
    _speed(report, setting, eager, "PyTorch, autocast", TorchEmbedder(half, spec))
    for precision in backend.precisions:
        out = setting.work / f"{backend.name}-{precision}"
        if _build(report, checkpoint, out, backend, precision, images) is not None:
            _speed(report, setting, eager, f"{backend.name}, {precision}", open_branch(out, _BRANCH))
    if not setting.dry:  # last, because it compiles for a minute
        compiled: Any = torch.compile(half)
        _speed(report, setting, eager, "torch.compile, autocast", TorchEmbedder(compiled, spec))


def _build(
    report: Report, source: Path, out: Path, backend: Backend, precision: Precision, calibration: str
) -> float | None:
    """Build an engine and return the seconds it took; None, and a fault, if it cannot be built."""
    quantised = ("--calibration", calibration, "--images", "16") if precision in ("int8", "fp8") else ()
    start = time.perf_counter()
    done = _command("build-engine", source, "--precision", precision, *backend.how, *quantised, "--out", out)
    if not done.returncode:
        return time.perf_counter() - start
    report.row("Not built", engine=out.name, why=_words(done))
    report.require(False, f"{out.name} could not be built")
    return None


def _parity(report: Report, run: Path, out: Path, unseen: str, precision: Precision, seconds: float) -> None:
    """Accept an undecided verdict: so few pairs cannot exclude a drop of recall."""
    done = _command("parity", run, out, "--data", unseen, "--no-stages", "--accept-undecided", "--json")
    if done.returncode not in (0, 1, 3):
        report.row("Not run", engine=out.name, why=_words(done))
        report.require(False, f"{out.name} could not be run")
        return
    figures = json.loads(done.stdout)
    (candidate,) = figures["candidates"]
    at_1 = candidate["pairings"][0]["changes"][0]
    verdicts = {check["name"]: check["verdict"] for check in candidate["gate"]["checks"]}
    report.row(
        "Parity",
        precision=precision,
        seconds_to_build=seconds,
        verdict=figures["verdict"],
        **{"R@1 of PyTorch": at_1["before"], "change of R@1": at_1["change"]},
        smallest_cosine=min(branch["smallest_cosine"] for branch in candidate["branches"]),
        rows_do_not_depend_on_their_batch=verdicts["batches"],
    )
    report.require(figures["verdict"] == "passed", f"{precision}: {' '.join(candidate['gate']['reasons'])}")


def _speed(report: Report, setting: Setting, eager: Embedder, name: str, embedder: Embedder) -> None:
    """Time `embedder` interleaved with PyTorch's eager float32."""
    for batch in setting.size.batches:
        images = noise(embedder.spec, batch)
        slow, timing = time_embedders([eager, embedder], [images, images], rounds=setting.size.rounds)
        report.row(
            f"Speed of the {_BRANCH} branch",
            batch=batch,
            engine=name,
            **{"images/s": timing.speed.median, "ms per call": timing.latency(0.5)},
            images_per_second_of_PyTorch_in_float32=slow.speed.median,
            times_as_fast=timing.ratio(slow).median,
        )


class _Half(nn.Module):
    """A network under autocast, the usual half precision in PyTorch."""

    def __init__(self, network: FromPixels) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.float16 if images.is_cuda else torch.bfloat16):
            rows: Tensor = self.network(images)
        return rows.float()


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geodtr.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stderr.write(f"$ {' '.join(command[3:])}\n{done.stderr}")
    return done


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """Exit code and the end of a command's error output in one line."""
    return f"exit code {done.returncode}: {' '.join(done.stderr.split())[-_MESSAGE_LENGTH:]}"
