"""Models side by side on this machine: latency, throughput, time to open, memory, time by layer.

Knows models and their timings; `timing` holds the clock, `footprint` what opening costs.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

from geodtr.export.bench.footprint import measure_footprint
from geodtr.export.model import Model, distinct_names, is_bundle
from geodtr.export.timing import ROUNDS, Timing, time_embedders, together
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.engines.base import DEFAULT_OPTIONS, EngineOptions, LayerTime
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.machine import Machine, this_cpu
from geodtr.runtime.manifest import BackendChoiceEntry, Ratio, Speed, read_manifest
from geodtr.runtime.names import BACKENDS, BRANCHES, Branch, Precision
from geodtr.runtime.preflight import Finding, check_choice
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Embedder, Images, noise
from geodtr.training.data.pair_set import PairSet
from geodtr.training.evaluation.evaluate import load_first

BATCHES = (1, 8)
_LAYER_CALLS = 10
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")


@dataclass(frozen=True, slots=True)
class Row:
    """One model's branch at one batch size. Latencies are for a call with the whole batch, in milliseconds.

    `ratio` is the speed relative to the first model, `times_fp32` relative to the first float32 model of the same
    backend: None for that model itself, and if there is none. `seconds_to_open` (median) and `memory` (peak bytes) are
    measured in new processes that embed one batch; None if none was started.
    """

    model: str
    runs_by: str
    precision: Precision
    branch: Branch
    batch: int
    calls: int
    latency: float
    latency_p95: float
    latency_p99: float
    speed: Speed
    ratio: Ratio
    times_fp32: Ratio | None
    seconds_to_open: float | None
    memory: int | None

    @property
    def slower_than_fp32(self) -> bool:
        """Whether it was slower than fp32 in every round."""
        return self.times_fp32 is not None and self.times_fp32.slower

    @property
    def not_faster_than_fp32(self) -> bool:
        """Whether its median misses what --require-faster asks for."""
        return self.times_fp32 is not None and not self.times_fp32.median > 1


@dataclass(frozen=True, slots=True)
class Layers:
    """One engine's layers, the longest first; milliseconds are medians a call, the profiler's own work included."""

    model: str
    branch: Branch
    batch: int
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A bundle's record of the backends that `--backend auto` tried when it was built; `kept` is the one it keeps.

    `today`: the kept one's speed in this measurement at the record's batch size, by `ground`, `aerial` and `both`;
    empty where that batch size was not measured. `finding`: whether the record is of this machine, else the command
    that chooses again.
    """

    model: str
    kept: str
    finding: Finding
    choice: BackendChoiceEntry
    today: dict[str, Speed]


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured, on what machine, with which packages. `images`: noise, or the data set they are from.
    `chosen`: of each model whose backend was chosen by measured speed.
    """

    machine: Machine
    packages: dict[str, str]
    threads: int | None
    images: str
    rounds: int
    rows: tuple[Row, ...]
    layers: tuple[Layers, ...]
    chosen: tuple[Chosen, ...] = ()  # words: exempt (a key of the JSON report)


def run_bench(
    models: Sequence[Model],
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    options: EngineOptions = DEFAULT_OPTIONS,
    data: PairSet | None = None,
    openings: int = 1,
    layers: bool = False,
    track: Track = untracked,
) -> BenchReport:
    """Measure `models`, opened with `options`, against the first of them: each branch at each batch size.

    `openings`: fresh processes for each of these. `layers`: also the times of each bundle's; checkpoints tell none.
    """
    names = distinct_names(models)
    by_layer = [
        _layers(model, name, branch, batches[0], options)
        for model, name in zip(models, names, strict=True)
        for branch in BRANCHES
        if layers and is_bundle(model.path)
    ]
    rows, measured = list[Row](), dict[tuple[Branch, int], list[Timing]]()
    cells = [(branch, batch) for branch in BRANCHES for batch in batches]
    for branch, batch in cells:
        embedders = [model.embedders[branch] for model in models]
        images = [_images(embedder, batch, data) for embedder in embedders]
        timings = measured[branch, batch] = time_embedders(embedders, images, rounds=rounds, track=track)
        opened = [
            [measure_footprint(model.path, branch, batch, options.threads) for model in models]
            for _ in track(range(openings), "Opening in fresh processes", openings)
        ]
        for index, (model, timing) in enumerate(zip(models, timings, strict=True)):
            rows.append(
                Row(
                    model=names[index],
                    runs_by=model.runs_by,
                    precision=model.precision,
                    branch=branch,
                    batch=batch,
                    calls=timing.calls,
                    latency=timing.latency(0.5),
                    latency_p95=timing.latency(0.95),
                    latency_p99=timing.latency(0.99),
                    speed=timing.speed,
                    ratio=timing.ratio(timings[0]),
                    times_fp32=_times_fp32(index, models, timings),
                    seconds_to_open=median(each[index].seconds for each in opened) if opened else None,
                    memory=max((each[index].bytes for each in opened), default=None),
                )
            )
    return BenchReport(
        machine=this_cpu(),
        packages=packages(),
        threads=options.threads,
        images="noise" if data is None else data.name,
        rounds=rounds,
        rows=tuple(rows),
        layers=tuple(by_layer),
        chosen=tuple(_chosen(models, names, measured)),
    )


@contextmanager
def with_float32(paths: Sequence[Path], against: Sequence[str], *, track: Track = untracked) -> Iterator[list[Path]]:
    """`paths` and, while the context lasts, float32 bundles for the backends in `against`.

    They are built from the first of `paths` that has float32 graphs to build from. `torch` asks that one of them is a
    checkpoint, which PyTorch runs. Raises ConfigError when a name is unknown or has nothing to be made from.
    """
    from geodtr.export.backends.options import BACKEND_OPTIONS
    from geodtr.export.build.engine import build_engine
    from geodtr.export.build.request import BuildRequest

    allowed = ("torch", *BACKENDS)
    unknown = [name for name in against if name not in allowed]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} cannot be measured against; allowed: {', '.join(allowed)}.")
    if "torch" in against and all(map(is_bundle, paths)):
        raise ConfigError("torch runs checkpoints, and a bundle holds none: name the checkpoint or run as a MODEL too.")
    wanted = [backend for backend in BACKENDS if backend in against]
    source = next((path for path in paths if not is_bundle(path) or read_manifest(path).precision == "fp32"), None)
    if wanted and source is None:
        raise ConfigError(f"{wanted[0]} needs float32 graphs: name the checkpoint, or an fp32 bundle, as a MODEL too.")
    with tempfile.TemporaryDirectory() as folder:
        built = [Path(folder) / f"{backend} fp32" for backend in wanted]
        for backend, out in zip(wanted, built, strict=True):
            if source is not None:
                build_engine(BuildRequest(source, out, BACKEND_OPTIONS[backend]()), track=track)
        yield [*paths, *built]


def check_gate(models: Sequence[Model]) -> None:
    """Raise ConfigError unless every engine below float32 has the float32 one of its backend beside it."""
    there = {model.runs_by for model in models if model.precision == "fp32"}
    lower = [model for model in models if model.precision != "fp32"]
    for model in lower:
        if model.runs_by not in there:
            raise ConfigError(
                f"{model.name} ({model.precision}) cannot be shown to be faster: name the fp32 bundle of "
                f"{model.runs_by} as a MODEL too, or add --against."
            )
    if not lower:
        raise ConfigError("All models are fp32: there is none that --require-faster could ask it of.")


def _chosen(
    models: Sequence[Model], names: Sequence[str], measured: Mapping[tuple[Branch, int], Sequence[Timing]]
) -> Iterator[Chosen]:
    for index, (model, name) in enumerate(zip(models, names, strict=True)):
        if model.bundle is None:
            continue
        choice, finding = model.bundle.manifest.backend_choice, check_choice(model.path, model.bundle.manifest)
        if choice is None or finding is None:
            continue
        today = dict[str, Speed]()
        if all((branch, choice.batch) in measured for branch in BRANCHES):
            ground, aerial = (measured[branch, choice.batch][index] for branch in BRANCHES)
            today = {"ground": ground.speed, "aerial": aerial.speed, "both": together(ground, aerial).speed}
        yield Chosen(name, model.runs_by, finding, choice, today)


def _times_fp32(index: int, models: Sequence[Model], timings: Sequence[Timing]) -> Ratio | None:
    if models[index].precision == "fp32":
        return None
    for model, timing in zip(models, timings, strict=True):
        if model.precision == "fp32" and model.runs_by == models[index].runs_by:
            return timings[index].ratio(timing)
    return None


def _layers(model: Model, name: str, branch: Branch, batch: int, options: EngineOptions) -> Layers:
    images = noise(model.embedders[branch].spec, batch)
    times = open_bundle(model.path).layer_times(branch, images, _LAYER_CALLS, options)
    return Layers(name, branch, batch, tuple(times))


def _images(embedder: Embedder, batch: int, data: PairSet | None) -> Images:
    """Noise, or what is seen of the set's first images, over and over where it holds fewer than a batch."""
    if data is None:
        return noise(embedder.spec, batch)
    images = load_first(data, batch, embedder.spec)
    return np.resize(images, (batch, *images.shape[1:]))


def packages() -> dict[str, str]:
    """The versions of the installed packages that affect speed."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
