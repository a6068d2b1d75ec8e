"""Measure the full-size network on every engine and write docs/performance.md: python benchmarks/engines.py WORK

Uses the paper's sizes (preset geodtr-cvusa). Without --checkpoint, the weights are random with a fixed seed, and the
batch normalisation statistics are from generated pairs, so that activations have realistic magnitudes. The rows `by
hand` use the library directly on the exported ONNX file. WORK caches all files. Takes about five minutes on two CPU
cores. Under tools/avx2_only.py, use another WORK and --out.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import numpy as np
import torch

from geodtr import BuildRequest, Calibration, build_engine
from geodtr.cli.console import times, track
from geodtr.export.backends.options import BACKEND_OPTIONS
from geodtr.export.bench.footprint import measure_footprint
from geodtr.export.bench.measure import packages
from geodtr.export.build.precisions import plan_of
from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.model import is_bundle, open_model
from geodtr.export.timing import Timing, rounded, time_embedders, together
from geodtr.runtime.embed.pipeline import embed_files, load_batches
from geodtr.runtime.files import write_bytes
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import read_manifest
from geodtr.runtime.names import BRANCHES, Backend, Branch, Precision
from geodtr.runtime.spec import INPUT, BranchSpec, Descriptors, EmbedderPair, Images, noise
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.spec import read_test_set, read_training_set
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.embedder import normalise
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset
from geodtr.training.world.dataset import WorldSet, write_world

PRESET = "geodtr-cvusa"
CALIBRATION_PAIRS, TEST_PAIRS = 32, 16
BATCHES = (1, 8)
ROUNDS = 8
OPENINGS = 3
EAGER, FLOAT32 = "PyTorch, eager", "ONNX Runtime fp32"
Built = tuple[str, Backend, Precision]
BUILT: tuple[Built, ...] = (
    (FLOAT32, "onnxruntime", "fp32"),
    ("ONNX Runtime fp16", "onnxruntime", "fp16"),
    ("ONNX Runtime int8", "onnxruntime", "int8"),
    ("OpenVINO fp32", "openvino", "fp32"),
    ("OpenVINO int8", "openvino", "int8"),
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the tables; `path` is None for a library used directly."""

    name: str
    embedders: EmbedderPair
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """How one contender is opened, here or in another process: by this project, or by a library directly."""

    name: str
    path: Path
    library: Callable[[Path], Any] | None = None

    def __call__(self) -> Contender:
        if self.library is None:
            return Contender(self.name, open_model(self.path).embedders, self.path)
        return Contender(self.name, by_hand(self.path, self.library))


class ByHand:
    """An embedder that calls a library directly, as in its tutorial."""

    def __init__(self, spec: BranchSpec, run: Any) -> None:
        self._spec, self._run = spec, run

    @property
    def spec(self) -> BranchSpec:
        return self._spec

    def embed(self, images: Images) -> Descriptors:
        return np.asarray(self._run(images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="Checkpoint to measure; needs --data.")
    parser.add_argument("--data", help="SPEC: calibrate on its training images, compare on its test images.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "performance.md")
    options = parser.parse_args()
    if (options.checkpoint is None) != (options.data is None):
        parser.error("--checkpoint and --data need each other")
    if options.checkpoint is None:
        train_set, test_set = worlds(options.work)
        checkpoint = random_checkpoint(options.work, train_set)
    else:
        train_set, test_set = read_training_set(options.data), read_test_set(options.data, TEST_PAIRS)
        checkpoint = options.checkpoint
    contenders = open_all(checkpoint, options.work, train_set)
    page = [introduction(options.rounds, options.checkpoint is not None)]
    page += [speed_table(contenders, batch, options.rounds) for batch in BATCHES]
    page += [cosine_table(contenders, test_set), opening_table(contenders)]
    write_bytes(options.out, "\n".join(page).encode())
    sys.stdout.write("\n".join(page))


def worlds(work: Path) -> tuple[PairSet, PairSet]:
    config = load_preset(PRESET)
    for name, region, pairs in (("train", "valley", CALIBRATION_PAIRS), ("test", "coast", TEST_PAIRS)):
        if not (work / name).exists():
            size = WorldSet(pairs=pairs, height=config.ground.height, width=config.ground.width, region=region)
            write_world(work / name, size, track=track)
    return read_training_set(f"pairs:{work / 'train'}"), read_test_set(f"pairs:{work / 'test'}")


def random_checkpoint(work: Path, pairs: PairSet, preset: str = PRESET) -> Path:
    """Random weights and biases with a fixed seed; running means and variances are averages over `pairs`, in batches of
    eight. Biases of zeros, as many networks begin with, would be left out of the exported graph.
    """
    path = work / "random.safetensors"
    if path.exists():
        return path
    torch.manual_seed(0)
    config = load_preset(preset)
    model = build_model(config.model, config.ground, config.aerial).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.02)
    for branch in track(BRANCHES, "Taking batch statistics", len(BRANCHES)):
        how = model.specs[branch].preprocessing
        images = np.concatenate(list(load_batches(pairs.paths(branch), how)))
        for batch in np.array_split(images, len(images) // 8):
            with torch.no_grad():
                model.branch(branch)(normalise(torch.from_numpy(batch), how.mean, how.std))
    save_checkpoint(path, model.eval(), f"drawn at random, batch statistics of {len(pairs)} generated pairs")
    return path


def open_all(checkpoint: Path, work: Path, calibration: PairSet, built: Sequence[Built] = BUILT) -> list[Contender]:
    """PyTorch, our engines, and the libraries by hand. Builds the bundles that WORK does not have."""
    return [opening() for opening in openings(checkpoint, work, calibration, built)]


def openings(checkpoint: Path, work: Path, calibration: PairSet, built: Sequence[Built] = BUILT) -> Iterator[Opening]:
    """The contenders of `open_all`, not yet opened. Builds the bundles that WORK does not have."""
    yield Opening(EAGER, checkpoint)
    folder = work / open_model(checkpoint).embedding_id
    exported = folder / "onnx"
    if not is_bundle(exported):
        export_checkpoint(checkpoint, exported, track=track)
    for name, backend, precision in built:
        if find_spec(backend) is None:
            continue
        out = folder / f"{backend}-{precision}"
        if not is_bundle(out):
            plan = plan_of(precision, Calibration(pool_of(calibration), images=CALIBRATION_PAIRS))
            build_engine(BuildRequest(exported, out, BACKEND_OPTIONS[backend](), plan), track=track)
        yield Opening(name, out)
    yield Opening("onnxruntime by hand, fp32", exported, onnxruntime_by_hand)
    if find_spec("openvino") is not None:
        yield Opening("openvino by hand, fp32", exported, openvino_by_hand)


def by_hand(exported: Path, open_file: Any) -> EmbedderPair:
    """Both branches of the exported bundle, opened directly by the library."""
    manifest = read_manifest(exported)
    ground, aerial = (
        ByHand(manifest.engine(branch).spec, open_file(exported / manifest.engine(branch).file)) for branch in BRANCHES
    )
    return EmbedderPair(ground, aerial)


def onnxruntime_by_hand(file: Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})[0]


def openvino_by_hand(file: Path) -> Any:
    """With float32 arithmetic; by default OpenVINO uses bfloat16 on some CPUs."""
    compiled = import_module("openvino").Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0]


def introduction(rounds: int, trained: bool) -> str:
    cpu = this_cpu()
    hidden = os.environ.get("GEODTR_AVX2_ONLY")
    command = ("python tools/avx2_only.py " if hidden else "") + "python benchmarks/engines.py WORK"
    command += " --checkpoint CKPT --data SPEC" if trained else ""
    command += "" if rounds == ROUNDS else f" --rounds {rounds}"
    versions = ", ".join(f"{name} {version}" for name, version in packages().items())
    random = (
        "random with a fixed seed, with the batch statistics of generated pairs; this does not change the duration of "
        "an operation, but may change how many operators can be INT8"
    )
    kernels = (
        " (the tool hides the CPU's other extensions, so that the libraries use their AVX2 kernels)" if hidden else ""
    )
    paragraphs = (
        f"Written by this command on {os.cpu_count()} cores, {cpu.architecture} ({', '.join(cpu.cpu_flags)})"
        f"{kernels}, with {versions}.",
        "The paper's network: ResNet-34, 122x671 pixels per branch, K 8. The weights are "
        f"{'from the checkpoint' if trained else random}. Every library chooses its own number of threads. The input "
        f"is noise. Speeds are medians of {rounds} interleaved rounds. Ratios are for both branches together, computed "
        "within a round, with their range.",
    )
    page = "\n\n".join(fill(paragraph, 120, break_on_hyphens=False) for paragraph in paragraphs)
    return f"# Speed of the engines\n\n    {command}\n\n{page}\n"


def speed_table(contenders: Sequence[Contender], batch: int, rounds: int) -> str:
    timings = {branch: time_branch(contenders, branch, batch, rounds) for branch in BRANCHES}
    both = [together(ground, aerial) for ground, aerial in zip(*timings.values(), strict=True)]
    names = [contender.name for contender in contenders]
    eager, float32 = both[names.index(EAGER)], both[names.index(FLOAT32)]
    lines = [
        f"## Batch {batch}\n",
        f"| | ground, images/s | aerial, images/s | against {EAGER} | against {FLOAT32} |",
        "|---|---|---|---|---|",
    ]
    for row, name in enumerate(names):
        speeds = [rounded(timings[branch][row].speed.median) for branch in BRANCHES]
        lines.append(
            f"| {name} | {' | '.join(speeds)} | {times(both[row].ratio(eager))} | {times(both[row].ratio(float32))} |"
        )
    return "\n".join(lines) + "\n"


def time_branch(contenders: Sequence[Contender], branch: Branch, batch: int, rounds: int) -> list[Timing]:
    embedders = [contender.embedders[branch] for contender in contenders]
    return time_embedders(embedders, [noise(one.spec, batch) for one in embedders], rounds=rounds, track=track)


def cosine_table(contenders: Sequence[Contender], test_set: PairSet) -> str:
    """The smallest cosine of each row with PyTorch's descriptors, and the share of INT8 operators."""
    reference, *others = (embed(contender, test_set) for contender in contenders)
    lines = [
        f"## Smallest cosine with PyTorch's descriptors\n\nOn {len(test_set)} pairs that are not used to calibrate.\n",
        "| | ground | aerial | |",
        "|---|---|---|---|",
    ]
    for contender, descriptors in zip(contenders[1:], others, strict=True):
        each = [float(np.sum(descriptors[branch] * reference[branch], axis=1).min()) for branch in BRANCHES]
        lines.append(f"| {contender.name} | {each[0]:.5f} | {each[1]:.5f} | {quantised(contender.path)} |")
    return "\n".join(lines) + "\n"


def embed(contender: Contender, test_set: PairSet) -> dict[Branch, Descriptors]:
    return {
        branch: embed_files(contender.embedders[branch], test_set.paths(branch), batch_size=8) for branch in BRANCHES
    }


def quantised(bundle: Path | None) -> str:
    record = None if bundle is None else read_manifest(bundle).quantisation
    if record is None:
        return ""
    return f"{record.operators - len(record.kept_float)} of {record.operators} operators INT8, {record.dialect}"


def opening_table(contenders: Sequence[Contender]) -> str:
    lines = [
        "## Time to the first descriptor\n",
        f"The ground branch at batch size 1, in new processes: median of {OPENINGS}, including loading the libraries",
        "and hashing the files. Memory is the peak minus the memory of an empty Python process.\n",
        "| | seconds | MB |",
        "|---|---|---|",
    ]
    opened = [contender for contender in contenders if contender.path is not None]
    rounds = [
        [measure_footprint(contender.path, "ground", 1) for contender in opened if contender.path is not None]
        for _ in track(range(OPENINGS), "Opening in fresh processes", OPENINGS)
    ]
    for row, contender in enumerate(opened):
        costs = [each[row] for each in rounds]
        seconds, memory = median(cost.seconds for cost in costs), max(cost.bytes for cost in costs)
        lines.append(f"| {contender.name} | {seconds:.2f} | {memory / 1e6:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
