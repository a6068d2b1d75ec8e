"""Compare the embedding pipeline with its slowest stage: python benchmarks/pipeline.py BUNDLE IMAGES...

The stages are reading (decoding and preprocessing in one thread per core) and inference (--threads). Each runs over all
images with the pipeline's own functions. Decoding and preprocessing are also timed separately. Stages and pipeline are
interleaved, so that other load affects all alike; ratios are computed within a round. If the engine runs on the CPU, a
pipeline cannot be faster than its total CPU time divided by the cores; the ratio to this bound is printed too.
"Elsewhere" is the pipeline with an engine that uses no CPU, like a GPU: it sleeps for as long as the real one takes.
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

from geodtr import open_bundle
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
    """An engine that takes `seconds` per image and uses no CPU."""

    spec: BranchSpec
    seconds: float

    def embed(self, images: Images) -> Descriptors:
        time.sleep(len(images) * self.seconds)
        return np.zeros((len(images), self.spec.descriptor_size), np.float32)


def in_threads(function: Callable[[Path], object], paths: Sequence[Path]) -> None:
    """Call `function` for each path in threads, as the pipeline does."""
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
    parser.add_argument("--repeat", type=int, default=1, help="Number of times to use each image.")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    embedder = open_bundle(options.bundle).embedder(options.branch, EngineOptions(threads=options.threads))
    how = embedder.spec.preprocessing
    files = [frame.image for frame in open_frames(options.images).frames if isinstance(frame.image, Path)]
    paths = files * options.repeat
    decoded = {path: decode(path) for path in files}
    ready: list[Images] = [load_image(path, how) for path in paths]
    batches = [np.stack(ready[start : start + options.batch]) for start in range(0, len(ready), options.batch)]

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
        "elsewhere": lambda: embed_files(elsewhere, paths, batch_size=options.batch),
        "end to end": lambda: embed_files(embedder, paths, batch_size=options.batch),
    }
    walls: dict[str, list[float]] = {name: [] for name in stages}
    busy: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(options.rounds + 1):
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
    bound = [sum(busy[name][index] for name in alone) / CORES for index in range(options.rounds)]
    report(f"end to end / all work over {CORES} cores", walls[whole], bound)


def report(what: str, taken: Sequence[float], base: Sequence[float]) -> None:
    ratios = [own / other for own, other in zip(taken, base, strict=True)]
    print(f"{what}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
