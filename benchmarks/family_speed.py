"""Every model of the family at full size on this CPU, for docs/models.md: python benchmarks/family_speed.py WORK

Each release's preset with weights drawn at random, as in engines.py: its engines beside ONNX Runtime and OpenVINO used
directly on the same exported file, and INT8 beside float32. Two engines of one file differ by several percent by where
their memory lies, and what a process opens first is often slower: so each engine is opened alone in a fresh process, in
each round, one behind the other, every other round in the opposite order. WORK caches all files; a model's row is
printed, and kept in WORK, as soon as it is measured, so that a stopped run goes on.
"""

import argparse
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from engines import BUILT, EAGER, Opening, openings, quantised, random_checkpoint, worlds

from geodtr.cli.console import times, track
from geodtr.export.timing import Timing, rounded, time_pairs
from geodtr.runtime.files import write_bytes

PRESETS = {
    "GeoDTR": "geodtr-cvusa",
    "GeoDTR+": "geodtr-plus-cvusa",
    "Sample4Geo": "sample4geo-cvusa",
    "SAFA": "safa-cvusa",
    "L2LTR": "l2ltr-cvusa",
    "TransGeo": "transgeo-cvusa",
    "TransGeo, stage 2": "transgeo-cvusa-stage2",
    "CVFT": "cvft-cvusa",
    "DSM": "dsm-cvusa",
    "CDE": "cde-cvusa",
    "FusionGAN": "fusiongan-cvusa",
}
COMPARED = [each for each in BUILT if "fp16" not in each]
BATCH, ROUNDS, CALLS = 8, 4, 2
HEAD = """\
| model | images/s, fp32 | against ONNX Runtime by hand | OpenVINO against OpenVINO by hand | int8 against fp32 | \
OpenVINO's | INT8 operators |
|---|---|---|---|---|---|---|"""

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    worlds(options.work)
    print(HEAD)
    for model in options.models:
        file = options.work / PRESETS[model] / "row.txt"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            openers = in_fresh_process(build, model, options.work)
            taken = {each.name: list[tuple[float, ...]]() for each in openers}
            for number in track(range(options.rounds), f"Measuring {model}", options.rounds):
                for each in openers if number % 2 else reversed(openers):
                    taken[each.name].append(in_fresh_process(measure, each))
            timings = {name: Timing(2 * BATCH, tuple(rounds)) for name, rounds in taken.items()}
            typed = next(quantised(each.path) for each in openers if each.name == "ONNX Runtime int8")
            write_bytes(file, row(model, typed, timings).encode())
        print(file.read_text(encoding="utf-8"), flush=True)


def in_fresh_process(work: Callable[..., Result], *arguments: object) -> Result:
    """What `work` returns, computed where nothing has used memory before."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def build(model: str, work: Path) -> list[Opening]:
    """What opens each contender. Builds the model's bundles that `work` does not have."""
    folder, (train_set, _) = work / PRESETS[model], worlds(work)
    checkpoint = random_checkpoint(folder, train_set, PRESETS[model])
    return [each for each in openings(checkpoint, folder, train_set, COMPARED) if each.name != EAGER]


def measure(opening: Opening) -> tuple[float, ...]:
    """Seconds that a batch of each branch took together, of each call."""
    (timing,) = time_pairs([opening().embedders], BATCH, rounds=CALLS)
    return tuple(timing["both"].seconds)


def row(model: str, typed: str, timings: Mapping[str, Timing]) -> str:
    """Ratios are taken within a round: the median, the lowest and the highest."""
    onnxruntime, openvino = timings["ONNX Runtime fp32"], timings["OpenVINO fp32"]
    ratios = (
        onnxruntime.ratio(timings["onnxruntime by hand, fp32"]),
        openvino.ratio(timings["openvino by hand, fp32"]),
        timings["ONNX Runtime int8"].ratio(onnxruntime),
        timings["OpenVINO int8"].ratio(openvino),
    )
    return f"| {model} | {rounded(onnxruntime.speed.median)} | {' | '.join(map(times, ratios))} | {typed} |"


if __name__ == "__main__":
    main()
