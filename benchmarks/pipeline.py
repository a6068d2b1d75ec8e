"""The embedding pipeline end to end against its slowest stage alone: python benchmarks/pipeline.py BUNDLE IMAGES...

Stages: reading, which is decoding and preprocessing, as a thread does both of one image, and inference; each over all
images by what the pipeline itself calls, with the threads that it has there: the processor's number to read, --threads
for the engine. Decoding and preprocessing are timed by themselves as well. The turn goes round the stages and the
pipeline, so that a neighbour's load falls on all alike; ratios are taken within a round. Where the engine is the
processor itself, no pipeline can be faster than all work spread over all cores: its time over that bound is printed
too, from the processor time that the stages took. "Elsewhere" is the pipeline with an engine that leaves the processor
alone, as a GPU would: it waits for as long as the real one had taken, and computes nothing.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.images.decode import decode
from geodtr.runtime.images.frames import open_frames
from geodtr.runtime.images.preprocess import as_input, load_image
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.spec import BranchSpec, Descriptors, Images

CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Elsewhere:
    """An engine that takes `seconds` for an image and no processor."""

    spec: BranchSpec
    seconds: float

    def embed(self, images: Images) -> Descriptors:
        time.sleep(len(images) * self.seconds)
        return np.zeros((len(images), self.spec.descriptor_size), np.float32)


def in_threads(function: Callable[[Path], object], paths: Sequence[Path]) -> None:
    """As the pipeline's threads do it, and nothing else."""
    with closing(work_ahead(function, paths, threads=CORES, ahead=64)) as results:
        for _, result in results:
            result.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--branch", choices=BRANCHES, default="ground")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1, help="how often the images are taken")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()

    embedder = open_bundle(asked.bundle).embedder(asked.branch, EngineOptions(threads=asked.threads))
    how = embedder.spec.preprocessing
    paths = [frame.image for frame in open_frames(asked.images).frames if isinstance(frame.image, Path)] * asked.repeat
    decoded = {path: decode(path) for path in dict.fromkeys(paths)}
    ready: list[Images] = [load_image(path, how) for path in paths]
    batches = [np.stack(ready[start : start + asked.batch]) for start in range(0, len(ready), asked.batch)]

    def infer() -> None:
        for batch in batches:
            embedder.embed(batch)

    infer()
    start = time.perf_counter()
    infer()
    elsewhere = Elsewhere(embedder.spec, (time.perf_counter() - start) / len(paths))

    stages: dict[str, Callable[[], object]] = {
        "decode": partial(in_threads, decode, paths),
        "preprocess": partial(in_threads, lambda path: as_input(decoded[path], how), paths),
        "read": partial(in_threads, partial(load_image, how=how), paths),
        "infer": infer,
        "elsewhere": lambda: embed_files(elsewhere, paths, batch_size=asked.batch),
        "end to end": lambda: embed_files(embedder, paths, batch_size=asked.batch),
    }
    walls: dict[str, list[float]] = {name: [] for name in stages}
    busy: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(asked.rounds + 1):
        for name, stage in stages.items():
            start, start_busy = time.perf_counter(), time.process_time()
            stage()
            if number:  # the first round warms up
                walls[name].append(time.perf_counter() - start)
                busy[name].append(time.process_time() - start_busy)
    alone, whole = ("read", "infer"), "end to end"
    for name, taken in walls.items():
        rates = [len(paths) / seconds for seconds in taken]
        used = median(busy[name]) / median(taken)
        print(f"{name:12}{median(rates):9.0f} images/s ({min(rates):.0f} to {max(rates):.0f}), {used:.2f} cores busy")
    slowest = max(alone, key=lambda name: median(walls[name]))
    for name in ("elsewhere", whole):
        report(f"{name} / {slowest}", walls[name], walls[slowest])
    bound = [sum(busy[name][index] for name in alone) / CORES for index in range(asked.rounds)]
    report(f"end to end / all work over {CORES} cores", walls[whole], bound)


def report(what: str, taken: Sequence[float], base: Sequence[float]) -> None:
    ratios = [own / other for own, other in zip(taken, base, strict=True)]
    print(f"{what}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
